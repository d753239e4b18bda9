"""Compressed bodies of answers that were asked for uncompressed: gzip and deflate, decoded as they arrive.

One step decodes at most 64 KiB. The decoded bytes are not counted: their reader has to limit them.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

_PIECE = 64 * 1024
"""The most decoded bytes of one step."""

_PLAIN = frozenset({"", "identity", "aws-chunked"})
_GZIP = frozenset({"gzip", "x-gzip"})
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_LAYERS = 3


class EncodingUnreadable(Exception):
    """The gateway does not know the body's encoding, the body has too many of them, or its bytes are damaged."""


async def decode(pieces: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Yield the body without the encodings that a Content-Encoding header names. Raises EncodingUnreadable.

    A body that is not gzip despite its header is yielded as it is. An incomplete body raises nothing.
    """
    names = [name for name in _names(encoding) if name not in _PLAIN]
    if len(names) > _MOST_LAYERS or any(name != "deflate" and name not in _GZIP for name in names):
        raise EncodingUnreadable("its compression is not known")
    for name in reversed(names):
        pieces = _inflate(pieces, is_gzip=name in _GZIP)
    async for piece in pieces:
        yield piece


async def _inflate(pieces: AsyncIterator[bytes], *, is_gzip: bool) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        rest += piece
        if len(rest) >= 2:
            break
    if is_gzip and not rest.startswith(_GZIP_MAGIC):
        # Some proxies unpack a body and leave the header.
        yield rest
        async for piece in pieces:
            yield piece
        return
    engine = _open(rest, is_gzip=is_gzip)
    while engine is not None:
        try:
            data = engine.decompress(rest, _PIECE)
        except zlib.error as error:
            raise EncodingUnreadable("its compressed bytes are damaged") from error
        yield data
        rest = engine.unconsumed_tail
        if engine.eof:
            rest = engine.unused_data or await anext(pieces, b"")
            # A body may have several members, and padding after the last one.
            engine = _open(rest, is_gzip=True) if is_gzip and rest.startswith(_GZIP_MAGIC) else None
        elif rest or len(data) == _PIECE:
            await asyncio.sleep(0)
        elif not (rest := await anext(pieces, b"")):
            return


def _open(head: bytes, *, is_gzip: bool) -> zlib._Decompress:
    if is_gzip:
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    # RFC 9110 means zlib's format by `deflate`; some servers send the bare stream.
    is_zlib = len(head) > 1 and head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)


def _names(encoding: str) -> list[str]:
    return [name.strip().lower() for name in encoding.split(",")]
