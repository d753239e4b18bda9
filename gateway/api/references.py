"""The pictures of an edit: fetched where they are URLs, checked, freed of metadata, and the mask held against image 1.

Called by the image routes after the parameters were found right, so that nothing is fetched for a wrong request.
"""

from __future__ import annotations

import asyncio

from gateway import errors
from gateway.api.forms import Form, Source
from gateway.net.fetcher import FetchFailed, FetchRefused
from gateway.pictures.picture import NotAPicture, Picture, check_mask
from gateway.pictures.spool import Blob, Spool, StorageFullError
from gateway.services import Services


async def load_references(services: Services, form: Form, spool: Spool) -> tuple[tuple[Picture, ...], Picture | None]:
    """The references in order, and the mask. Raises PublicError that names the field."""
    if not form.images:
        raise errors.MissingParameter("An edit needs at least one `image`.", param="image")
    sources = [*form.images, *([form.mask] if form.mask else [])]
    async with asyncio.TaskGroup() as group:
        loads = [group.create_task(_load_quietly(services, source, spool)) for source in sources]
    pictures: list[Picture] = []
    for load in loads:
        loaded = load.result()
        if isinstance(loaded, errors.PublicError):
            raise loaded
        pictures.append(loaded)
    if form.mask is None:
        return tuple(pictures), None
    mask = pictures.pop()
    try:
        check_mask(mask, pictures[0])
    except NotAPicture as error:
        raise errors.InvalidValue(str(error), param="mask") from error
    return tuple(pictures), mask


async def _load_quietly(services: Services, source: Source, spool: Spool) -> Picture | errors.PublicError:
    # An error is returned, so that the first in the caller's order is told and not the first in time.
    try:
        return await _load(services, source, spool)
    except errors.PublicError as error:
        return error
    except StorageFullError:
        return errors.StorageFull("The gateway's disk takes no more bytes.", retry_after=60)


async def _load(services: Services, source: Source, spool: Spool) -> Picture:
    blob = source.blob if source.blob is not None else await _fetch(services, source, spool)
    try:
        picture = await services.picture_converter.probe(blob, what=f"`{source.name}`")
        return await services.picture_converter.strip(picture, spool)
    except NotAPicture as error:
        raise errors.InvalidValue(str(error), param=source.name) from error


async def _fetch(services: Services, source: Source, spool: Spool) -> Blob:
    try:
        return await services.reference_fetcher.fetch(source.url or "", spool)
    except FetchRefused as error:
        raise errors.InvalidValue(f"`{source.name}` is refused: {error}", param=source.name) from error
    except FetchFailed as error:
        raise errors.InvalidValue(f"`{source.name}` could not be downloaded: {error}", param=source.name) from error
