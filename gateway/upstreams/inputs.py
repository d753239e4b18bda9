"""Converts a caller's pictures to the forms that vendors take, before the paid call. It sends nothing."""

from __future__ import annotations

from typing import Any

from gateway.catalogue.catalogue import Target
from gateway.jobs.job import Inputs
from gateway.net.multipart import FilePart, MultipartBody
from gateway.pictures.picture import NotAPicture, Picture, PictureConverter
from gateway.pictures.spool import Spool
from gateway.upstreams.verdict import UNFIT, CallFailed, Failure


async def make_png(picture_converter: PictureConverter, picture: Picture, spool: Spool, *, param: str) -> Picture:
    """The picture as an upright PNG. Raises CallFailed that names the caller's field when its pixels are broken.

    The gateway accepts a picture by its headers alone, so this may be the first decoding of its pixels.
    """
    try:
        return await picture_converter.to_png_upright(picture, spool)
    except NotAPicture as error:
        raise CallFailed(Failure("prepare", message=str(error), param=param)) from error


async def make_mask(picture_converter: PictureConverter, mask: Picture, target: Target, spool: Spool) -> Picture:
    """The mask as a PNG that the target takes. Raises CallFailed, with code UNFIT for a mask that is too large.

    The plan knew the size of the caller's file; a WebP may be ten times larger as a PNG.
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
    return MultipartBody([(name, str(value)) for name, value in fields.items()], files)


def _file(name: str, stem: str, picture: Picture) -> FilePart:
    return FilePart(name, f"{stem}.{picture.format}", picture.media_type, picture.blob)
