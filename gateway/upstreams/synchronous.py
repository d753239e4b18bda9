"""The base of adapters whose vendors answer a paid call at once, on OpenAI's two paths, and the forms that they take.

It sends the call, reads the answer, makes the free check, and never polls. Subclasses write the fields and prepare the
pictures. A form never holds a file's bytes: it reads them from their Blob while they are sent.
"""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway.catalogue.catalogue import Target
from gateway.jobs.job import Call, Inputs, Ticket, UpstreamAnswer
from gateway.pictures.picture import NotAPicture, Picture, PictureConverter
from gateway.pictures.spool import Blob, Spool
from gateway.upstreams.client import UpstreamClient, fail_on_error, read_answer
from gateway.upstreams.verdict import UNFIT, CallFailed, Failure

_ON_ITS_SIDE = 5
"""From this EXIF Orientation on, the displayed width is the stored height."""

# As browsers do (WHATWG HTML, "multipart/form-data encoding"), and the backslash too: many servers read it as an
# escape, so a name that ends in one would continue into the next parameter.
_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A", "\\": "%5C"})


class Synchronous(ABC):
    """The adapter of one credential and model. `submit` and `check` raise CallFailed, `poll` NotImplementedError."""

    def __init__(self, client: UpstreamClient, picture_converter: PictureConverter) -> None:
        self._client = client
        self._picture_converter = picture_converter
        self._model = client.target.config.model

    async def submit(self, call: Call, inputs: Inputs, spool: Spool) -> UpstreamAnswer | Ticket:
        fields = self._fields(call)
        if call.operation == "generation":
            reply = await self._client.pay("/v1/images/generations", fields, spool)
        else:
            reply = await self._client.pay("/v1/images/edits", edit_form(fields, inputs), spool)
        return read_answer(reply)

    async def poll(self, ticket: Ticket, spool: Spool) -> UpstreamAnswer | None:
        raise NotImplementedError("this dialect answers at once and gives no tickets")

    async def check(self, spool: Spool) -> Decimal | None:
        fail_on_error(await self._client.ask("GET", "/v1/models", None, spool))
        return None

    @staticmethod
    def read_ticket(document: Any) -> Ticket | None:
        return None

    @abstractmethod
    def _fields(self, call: Call) -> dict[str, Any]:
        """The fields of a call in the vendor's dialect."""


async def make_png(picture_converter: PictureConverter, picture: Picture, spool: Spool, *, param: str) -> Picture:
    """Convert a picture to an upright PNG. Raises StorageFullError, and CallFailed for `param` if that is impossible.

    The gateway accepts a picture by its headers alone, so this may be the first decoding of its pixels.
    """
    try:
        return await picture_converter.to_png_upright(picture, spool)
    except NotAPicture as error:
        raise CallFailed(Failure("prepare", message=str(error), param=param)) from error


async def make_upright(picture_converter: PictureConverter, picture: Picture, spool: Spool) -> Picture:
    """Turn a picture whose orientation swaps width and height; its format stays. Any other is returned as it is.

    The call's size follows the displayed shape. Raises CallFailed for `image` if the pixels are broken, and
    StorageFullError.
    """
    if picture.orientation < _ON_ITS_SIDE:
        return picture
    try:
        return await picture_converter.convert(picture, picture.format, spool, quality=100)
    except NotAPicture as error:
        raise CallFailed(Failure("prepare", message=str(error), param="image")) from error


async def make_mask(picture_converter: PictureConverter, mask: Picture, target: Target, spool: Spool) -> Picture:
    """Convert the mask to an upright PNG. Raises CallFailed, with the code UNFIT for a PNG too large for the target.

    The Plan knew only the bytes of the caller's file; a WebP may be ten times larger as a PNG.
    """
    made = await make_png(picture_converter, mask, spool, param="mask")
    most = target.profile.mask_bytes
    if made.blob.size >= most:
        message = f"The mask is {made.blob.size:,} bytes as a PNG, and this upstream takes less than {most:,}."
        raise CallFailed(Failure("prepare", code=UNFIT, message=message, param="mask"))
    return made


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file: its field name, its file name and content type for the upstream, and its bytes."""

    name: str
    filename: str
    content_type: str
    blob: Blob


class MultipartBody:
    """A body of text fields, then files, each in the order of the arguments.

    `content_type` and `content_length` are the request's headers; `chunks()` starts from the beginning at every call.
    """

    def __init__(
        self, fields: Sequence[tuple[str, str]], files: Sequence[FilePart], *, boundary: str | None = None
    ) -> None:
        # 128 random bits: a caller cannot make a picture that contains the end of a part.
        self.boundary = boundary or secrets.token_hex(16)
        self._parts: list[tuple[bytes, bytes | Blob]] = [
            (self._head(f'name="{_escape(name)}"'), value.encode()) for name, value in fields
        ]
        for part in files:
            if not part.content_type.isascii() or not part.content_type.isprintable():
                raise ValueError(f"not a content type: {part.content_type!r}")
            disposition = f'name="{_escape(part.name)}"; filename="{_escape(part.filename)}"'
            self._parts.append((self._head(disposition, part.content_type), part.blob))
        self._end = f"--{self.boundary}--\r\n".encode()

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def content_length(self) -> int:
        """Bytes of the whole body."""
        sizes = (
            len(head) + (content.size if isinstance(content, Blob) else len(content)) for head, content in self._parts
        )
        return sum(sizes) + 2 * len(self._parts) + len(self._end)

    @property
    def headers(self) -> dict[str, str]:
        """The two headers that the request needs. With a length, the transport never chunks the body."""
        return {"content-type": self.content_type, "content-length": str(self.content_length)}

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body from its first byte: small parts joined, files in the spool's pieces."""
        waiting = bytearray()
        for head, content in self._parts:
            waiting += head
            if isinstance(content, Blob):
                yield bytes(waiting)
                waiting.clear()
                async with aclosing(content.chunks()) as pieces:
                    async for piece in pieces:
                        yield piece
            else:
                waiting += content
            waiting += b"\r\n"
        yield bytes(waiting) + self._end

    def _head(self, disposition: str, content_type: str | None = None) -> bytes:
        lines = [f"--{self.boundary}", f"Content-Disposition: form-data; {disposition}"]
        if content_type is not None:
            lines.append(f"Content-Type: {content_type}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def edit_form(fields: dict[str, Any], inputs: Inputs) -> MultipartBody:
    """An edit as OpenAI's form: one picture is `image`, several are `image[]`."""
    is_list = len(inputs.references) > 1
    files = [
        _file("image[]" if is_list else "image", f"image-{index + 1}", picture)
        for index, picture in enumerate(inputs.references)
    ]
    if inputs.mask:
        files.append(_file("mask", "mask", inputs.mask))
    return MultipartBody(list_texts(fields), files)


def list_texts(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Fields as a form has them: text as it is, numbers and booleans as in JSON."""
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in fields.items()]


def _file(name: str, stem: str, picture: Picture) -> FilePart:
    return FilePart(name, f"{stem}.{picture.format}", picture.media_type, picture.blob)


def _escape(text: str) -> str:
    """The name in a form that cannot end the quotes or add a header."""
    return text.translate(_ESCAPES)
