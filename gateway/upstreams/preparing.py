"""A caller's picture as a vendor wants it, before anything is paid.

Used by the adapters' `prepare`. Never sends anything.
"""

from __future__ import annotations

from gateway.pictures import Darkroom, NotAPicture, Picture
from gateway.spool import Spool
from gateway.verdict import CallFailed, Failure


async def make_png(darkroom: Darkroom, picture: Picture, spool: Spool, *, param: str) -> Picture:
    """The picture as an upright PNG. Raises CallFailed that names the caller's field when its pixels are broken.

    A picture is taken in by its headers alone, so this may be the first look at its pixels.
    """
    try:
        return await darkroom.to_png_upright(picture, spool)
    except NotAPicture as error:
        raise CallFailed(Failure("prepare", message=str(error), param=param)) from error
