"""The JSON body of an image request: its fields, and its pictures as data URLs or links.

The body is in UTF-8, or in the charset that Content-Type declares, if `read_charset` knows it. The first bytes show
UTF-16, UTF-32 and a UTF-8 byte order mark, also against a declaration. This module checks no field but pictures.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from gateway import errors
from gateway.catalogue.document import Limits
from gateway.jobs.parameter_table import PICTURE_NAMES
from gateway.jobs.parameters import is_absent
from gateway.net.outside_text import read_charset
from gateway.pictures.json_stream import BadJson, JsonReader, PictureFault, TooLarge, is_web_address
from gateway.pictures.spool import Blob, Spool

MAX_TEXT = 4 * 2**20
"""The most bytes of a body beside its pictures. The longest prompt has 128,000 bytes in UTF-8."""

_EXAMPLE = '{"prompt": "a red fox in the snow"}'
_EMPTY = f"The body is empty: send a JSON object such as {_EXAMPLE}; an edit needs `image` too."


@dataclass(frozen=True, slots=True)
class Source:
    """The source of one picture: bytes of the body, or a URL. `name` is the field, for messages."""

    name: str
    blob: Blob | None = None
    url: str | None = None


@dataclass(slots=True)
class Form:
    """The fields and pictures of one body. `fields` has the name of each picture's field too, without the picture.

    `is_text` is True when the fields came as multipart text.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    images: list[Source] = field(default_factory=list)
    mask: Source | None = None
    is_text: bool = False


async def read_json(body: AsyncIterator[bytes], charset: str | None, spool: Spool, limits: Limits) -> Form:
    """Read the whole body. `charset` is the declared charset; None without a declaration.

    Raises InvalidValue, RequestTooLarge and StorageFullError, and the errors of `body`.
    """
    reader = JsonReader(spool, max_rest=MAX_TEXT, max_picture=limits.image_bytes, max_values=limits.json_values)
    is_empty = True
    try:
        async for piece in _in_utf8(body, charset):
            is_empty = is_empty and not piece
            await reader.feed(piece)
        document = await reader.finish()
    except BadJson as error:
        if is_empty:
            raise errors.InvalidValue(_EMPTY) from error
        raise errors.InvalidValue(f"The body is not valid JSON: {error}.") from error
    except TooLarge as error:
        raise errors.RequestTooLarge(f"The request is too large: {error}.") from error
    finally:
        await reader.abort()
    if not isinstance(document, dict):
        found = "an array" if isinstance(document, list) else "a single value"
        raise errors.InvalidValue(f"The body must be a JSON object, not {found}; right is {_EXAMPLE}.")
    return _make_form(document)


def _make_form(document: dict[str, Any]) -> Form:
    form = Form()
    taken: dict[str, str] = {}
    for name, value in document.items():
        kind = PICTURE_NAMES.get(name)
        if kind is None:
            form.fields[name] = value
        elif not is_absent(value):
            _check_once(taken, "mask" if kind == "mask" else "image", name)
            # The name stays among the fields: generations refuse it.
            form.fields[name] = True
            found = _json_sources(name, value)
            if kind != "mask":
                form.images += found
            elif len(found) > 1:
                raise errors.InvalidValue(f"`{name}` must be one image.", param=name)
            else:
                form.mask = next(iter(found), None)
    return form


def _check_once(taken: dict[str, str], place: str, name: str) -> None:
    """Record in `taken` the name of a field of pictures. Raises InvalidValue if `taken` has another name for them."""
    other = taken.setdefault(place, name)
    if other != name:
        raise errors.InvalidValue(f"Send `{other}` or `{name}`, not both.", param=name)


def _json_sources(name: str, value: Any) -> list[Source]:
    """The pictures of one field: one, or a list of them, without null items; `images` must be a list.

    Raises InvalidValue and RequestTooLarge.
    """
    if isinstance(value, list):
        return [_json_source(f"{name}[{index}]", item) for index, item in enumerate(value)]
    if name == "images":
        raise errors.InvalidValue('`images` must be an array such as [{"image_url": "https://..."}].', param="images")
    return [_json_source(name, value)]


def _json_source(name: str, value: Any) -> Source:
    """The source in one reference: `{"image_url": ...}`, or the URL itself. Raises InvalidValue and RequestTooLarge."""
    if isinstance(value, dict):
        if value.get("file_id") is not None:
            raise errors.InvalidValue(
                "This gateway has no files; instead of `file_id` send `image_url`, an https URL or a base64 data URL.",
                param=f"{name}.file_id",
            )
        name, value = f"{name}.image_url", value.get("image_url")
    if isinstance(value, Blob):
        return Source(name, blob=value)
    if isinstance(value, PictureFault):
        if value.is_too_large:
            raise errors.RequestTooLarge(f"`{name}` is too large: {value.reason}.", param=name)
        raise errors.InvalidValue(f"`{name}` is not a valid data URL: {value.reason}.", param=name)
    if isinstance(value, str) and is_web_address(value):
        return Source(name, url=value.strip())
    hint = "" if isinstance(value, str) else " It is no string."
    if isinstance(value, str) and value.lstrip()[:5].lower() == "data:":
        hint = " This data URL lacks `;base64,` before its data."
    raise errors.InvalidValue(
        f"`{name}` must be an https URL, or a base64 data URL of an image, such as data:image/png;base64,iVBOR….{hint}",
        param=name,
    )


async def _in_utf8(body: AsyncIterator[bytes], charset: str | None) -> AsyncIterator[bytes]:
    """Yield the body in UTF-8. Raises InvalidValue for an unknown charset, and for bytes that the charset forbids.

    The bytes of a UTF-8 body are not checked.
    """
    declared = read_charset(charset or "utf-8")
    if declared is None:
        raise errors.InvalidValue("The charset in Content-Type is not known here; send the body in UTF-8.")
    start = b""
    decoder: codecs.IncrementalDecoder | None = None
    is_known = False
    try:
        async for piece in body:
            if not is_known:
                start += piece
                if len(start) < 4:
                    continue
                piece, is_known = start, True
                decoder = _find_decoder(start, declared)
            yield piece if decoder is None else decoder.decode(piece).encode(errors="replace")
        if not is_known:
            decoder = _find_decoder(start, declared)
            yield start if decoder is None else decoder.decode(start).encode(errors="replace")
        if decoder is not None:
            decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise errors.InvalidValue("The body does not have the charset that it declares; send it in UTF-8.") from error


def _find_decoder(start: bytes, declared: str) -> codecs.IncrementalDecoder | None:
    """The decoder of the charset that a body's first bytes show, else of the declared one; None for UTF-8."""
    # Every JSON document begins with an ASCII character, so its zero bytes show UTF-16 and UTF-32.
    shown = json.detect_encoding(start)
    name = declared if shown.startswith("utf-8") else shown
    return None if name == "utf-8" or start.startswith(codecs.BOM_UTF8) else codecs.getincrementaldecoder(name)()
