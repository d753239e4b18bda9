"""Sample bodies: edits with an image just under 50 MiB, cheap to make, with valid checksums.

Written once into a folder as HTTP bodies. Only one piece at a time is in memory.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

IMAGE_LIMIT = 50 * 2**20

_BOUNDARY = "bench-5b1e8c1d9f"
_PROMPT = "a red fox in the snow"
_ROWS = 64
_WIDTH, _HEIGHT = 8192, 6396
"""Grey pixels, 52.4 million of them, of one byte each."""


@dataclass(frozen=True)
class Body:
    """A request's body in a file."""

    path: Path
    content_type: str


def plain(folder: Path, name: str, model: str) -> Body:
    """A generation that asks for one small picture."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"model": model, "prompt": _PROMPT, "size": "1024x1024"}), encoding="utf-8")
    return Body(path, "application/json")


def form(folder: Path, name: str, model: str, image: Path) -> Body:
    """An edit as multipart, as the SDKs send it."""
    path = folder / f"{name}.multipart"
    with path.open("wb") as file:
        for field, value in (("model", model), ("prompt", _PROMPT)):
            file.write(f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode())
        head = 'Content-Disposition: form-data; name="image"; filename="in.png"\r\nContent-Type: image/png'
        file.write(f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode())
        file.writelines(_pieces(image))
        file.write(f"\r\n--{_BOUNDARY}--\r\n".encode())
    return Body(path, f"multipart/form-data; boundary={_BOUNDARY}")


def data_url(folder: Path, name: str, model: str, image: Path) -> Body:
    """An edit as JSON whose image is a data URL."""
    path = folder / f"{name}.json"
    with path.open("wb") as file:
        head = json.dumps({"model": model, "prompt": _PROMPT, "images": [{"image_url": ""}]})
        before, after = head.split('"image_url": "')
        file.write(f'{before}"image_url": "data:image/png;base64,'.encode())
        file.writelines(base64.b64encode(piece) for piece in _pieces(image))
        file.write(after.encode())
    return Body(path, "application/json")


def pixel_heavy(folder: Path, megabytes: int = 0) -> Path:
    """A PNG that is all pixels: noise, which does not compress. Just under the limit, or of so many megabytes."""
    height = megabytes * 1_000_000 // _WIDTH if megabytes else _HEIGHT
    noise = b"".join(b"\0" + os.urandom(_WIDTH) for _ in range(_ROWS))
    pieces = _deflate(noise[: (_WIDTH + 1) * n] for n in _row_counts(height))
    return _write_png(folder / f"pixels{height}.png", _WIDTH, height, pieces)


def metadata_heavy(folder: Path) -> Path:
    """A small PNG with 50 MB of text chunks, which the gateway drops before it passes the picture on."""
    rows = zlib.compress(b"".join(b"\0" + bytes(1024) for _ in range(1024)))
    path = _write_png(folder / "metadata.png", 1024, 1024, [rows], comment=IMAGE_LIMIT - 100_000)
    assert path.stat().st_size < IMAGE_LIMIT
    return path


def _row_counts(height: int) -> Iterator[int]:
    whole, rest = divmod(height, _ROWS)
    yield from [_ROWS] * whole
    if rest:
        yield rest


def _deflate(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A zlib stream at level 0, which does not compress the noise."""
    packer = zlib.compressobj(0)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _write_png(path: Path, width: int, height: int, data: Iterable[bytes], comment: int = 0) -> Path:
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)))
        if comment:
            file.write(chunk(b"tEXt", b"Comment\0" + b"words " * (comment // 6)))
        file.writelines(chunk(b"IDAT", piece) for piece in data if piece)
        file.write(chunk(b"IEND", b""))
    if path.stat().st_size > IMAGE_LIMIT:
        raise ValueError(f"{path.name} passes the limit by {path.stat().st_size - IMAGE_LIMIT} bytes")
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _pieces(path: Path) -> Iterator[bytes]:
    # Divisible by three, so that the pieces' base64 needs no padding in between.
    with path.open("rb") as file:
        while piece := file.read(3 * 2**18):
            yield piece
