"""The base64 of an artifact, made as its bytes come, so that an answer never holds a whole picture.

Called by `shaping`. Never buffers more than two bytes between chunks.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

import pybase64


async def base64_chunks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The base64 text of all chunks together, padded at its end only."""
    carry = b""
    async for chunk in chunks:
        data = carry + chunk if carry else chunk
        whole = len(data) - len(data) % 3
        carry = data[whole:]
        if whole:
            yield pybase64.b64encode(data[:whole] if carry else data)
    if carry:
        yield pybase64.b64encode(carry)


def base64_length(size: int) -> int:
    """Characters of the base64 of `size` bytes."""
    return (size + 2) // 3 * 4
