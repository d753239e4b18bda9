"""The base of adapters whose vendors answer a paid call at once, on OpenAI's two paths. It never polls.

It sends the call, reads the answer and makes the free check. Subclasses write the fields and prepare the pictures.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from decimal import Decimal
from typing import Any

from gateway.catalogue.catalogue import Target
from gateway.jobs.job import Call, Inputs, Ticket, UpstreamAnswer
from gateway.net.multipart import FilePart, MultipartBody
from gateway.pictures.picture import NotAPicture, Picture, PictureConverter
from gateway.pictures.spool import Spool
from gateway.upstreams.client import UpstreamClient, fail_on_error, read_answer
from gateway.upstreams.verdict import UNFIT, CallFailed, Failure

_ON_ITS_SIDE = 5
"""From this EXIF Orientation on, the displayed width is the stored height."""


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
