"""The readers of outside bytes, each as a function that raises only where a promise is broken.

A refusal by an error of the reader's own is an answer like any other.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request

from gateway.api.forms import read_form
from gateway.catalogue.catalogue import CatalogueError
from gateway.catalogue.catalogue import read as read_catalogue
from gateway.catalogue.document import Limits
from gateway.errors import PublicError
from gateway.net.outside_text import Mask, read_retry_after
from gateway.pictures.json_stream import BadJson, JsonReader, TooLarge
from gateway.pictures.metadata.layout import Damaged, copy_pieces
from gateway.pictures.picture import read_layout, sniff
from gateway.pictures.spool import Blob, MemoryBudget, Spool
from gateway.upstreams.apiany import Apiany
from gateway.upstreams.client import (
    PICTURE_KEYS,
    Reply,
    find_balance,
    find_credits,
    find_error,
    find_usage,
    read_answer,
)
from gateway.upstreams.verdict import CallFailed, classify

# python-multipart logs every preamble.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

MOST = 1 << 20
FOLDER = Path(tempfile.gettempdir())
RUNNER = asyncio.Runner()
BOUNDARIES = [b"b", b"----WebKitFormBoundary7MA4YWxkTrZu0gW", b"x" * 70, b"--", b""]


def spool() -> Spool:
    return Spool(FOLDER, MemoryBudget(8 * MOST))


def pieces(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)] if step else [data]


def read_multipart(data: bytes) -> None:
    """The reader of forms: a 4xx or a form, and the same one however the bytes come."""
    boundary, body = BOUNDARIES[(data[0] if data else 0) % len(BOUNDARIES)], data[1:]
    step = 1 + (data[0] if data else 0) // len(BOUNDARIES)
    whole, split = (RUNNER.run(_read_form(body, boundary, size)) for size in (0, step))
    if isinstance(whole[0], int) and isinstance(split[0], int):
        # With several mistakes, the first one that is met is named.
        return
    assert whole == split, (whole, split)


async def _read_form(body: bytes, boundary: bytes, step: int) -> tuple[Any, ...]:
    parts = iter([*pieces(body, step), b""])

    async def receive() -> dict[str, Any]:
        piece = next(parts, b"")
        return {"type": "http.request", "body": piece, "more_body": piece != b""}

    kind = b'multipart/form-data; boundary="' + boundary + b'"'
    request = Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind)]}, receive)
    own = spool()
    try:
        form = await read_form(request, own, Limits(), MemoryBudget(8 * MOST))
    except PublicError as error:
        if error.status >= 500:
            raise
        return (error.status, error.param)
    finally:
        await own.close()
    return (json.dumps(form.fields, default=str, sort_keys=True), len(form.images), form.mask is None)


def read_json(data: bytes) -> None:
    """The streaming reader of JSON: what the standard library reads, and the same however the bytes come."""
    step, text = 1 + (data[0] if data else 0) % 7, data[1:]
    whole, split = (RUNNER.run(_read_json(text, size)) for size in (0, step))
    assert whole == split, (whole, split)
    if isinstance(whole, str):
        # Line ends within base64 are allowed, though JSON forbids them.
        json.loads(text, strict=False)


async def _read_json(text: bytes, step: int, keys: frozenset[str] = frozenset()) -> Any:
    own = spool()
    reader = JsonReader(own, picture_keys=keys, max_rest=MOST, max_picture=MOST)
    try:
        for piece in pieces(text, step):
            await reader.feed(piece)
        document = await reader.finish()
        return json.dumps(document, default=describe, sort_keys=True)
    except (BadJson, TooLarge) as error:
        return type(error)
    finally:
        await reader.abort()
        await own.close()


def describe(found: Any) -> str:
    """A picture by its size, and one that cannot be read by its reason."""
    return f"{found.size} bytes" if isinstance(found, Blob) else repr(found)


def read_picture(data: bytes) -> None:
    """The probes of PNG, JPEG and WebP: damaged, or a picture whose metadata can be taken off, for good."""
    form = sniff(data[:64])
    if form is None:
        return
    try:
        layout = read_layout(io.BytesIO(data), len(data), form)
    except Damaged:
        return
    if layout.is_animated:
        # Refused by every caller of this reader; nothing of it is kept.
        return
    assert layout.width > 0
    assert layout.height > 0
    stripped = b"".join(copy_pieces(io.BytesIO(data), layout.pieces))
    assert len(stripped) <= len(data) + 4096
    again = read_layout(io.BytesIO(stripped), len(stripped), form)
    assert (again.width, again.height) == (layout.width, layout.height)
    assert again.orientation == layout.orientation


def read_upstream(data: bytes) -> None:
    """The readers of upstreams' answers: images, a ticket, or a failure that has a verdict."""
    status = 100 + (data[0] if data else 0) * 2
    document, problem = RUNNER.run(_read_reply(data[1:]))
    reply = Reply(status, document, problem, read_retry_after(data[1:60].decode("latin-1")))
    find_error(document, Mask())
    for find in (find_usage, find_credits, find_balance, Apiany.read_ticket):
        find(document)
    try:
        assert read_answer(reply).images
    except CallFailed as failed:
        for is_unbilled in (True, False):
            verdict = classify(failed.failure, error_is_unbilled=is_unbilled)
            json.dumps(verdict.error.body()).encode()
            assert 400 <= verdict.error.status < 600


async def _read_reply(text: bytes) -> tuple[Any, str]:
    own = spool()
    reader = JsonReader(own, picture_keys=PICTURE_KEYS, max_rest=MOST, max_picture=MOST)
    try:
        await reader.feed(text)
        return await reader.finish(), ""
    except (BadJson, TooLarge) as error:
        return None, str(error)
    finally:
        await reader.abort()


def read_operators_file(data: bytes) -> None:
    """The reader of the catalogue: a document, or mistakes with their lines."""
    path = FOLDER / "igw-fuzz-catalogue.yaml"
    path.write_bytes(data)
    try:
        read_catalogue(path)
    except CatalogueError:
        return


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "multipart": read_multipart,
    "json": read_json,
    "pictures": read_picture,
    "answers": read_upstream,
    "catalogue": read_operators_file,
}
