"""The files of the simulator's links: pictures, drawn when fetched, and uploads, kept on disk.

A link needs no key, expires after its lifetime, and is removed when too many newer ones exist.
"""

import asyncio
import secrets
import shutil
import tempfile
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from gateway.simulator.picture import Picture
from gateway.simulator.uploads import Upload

_ENDINGS = {"png": "png", "jpeg": "jpg", "webp": "webp"}


@dataclass
class Link:
    """One link: a picture to draw, or an uploaded file at `path`."""

    url: str
    expires: float
    picture: Picture | None = None
    upload: Upload | None = None
    path: Path | None = None

    @property
    def is_expired(self) -> bool:
        return time.monotonic() >= self.expires


class LinkTable:
    """Links by name, oldest first."""

    def __init__(self, most_links: int, upload_space: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="imagegate-simulator-")
        self._links: OrderedDict[str, Link] = OrderedDict()
        self._most_links = most_links
        self._upload_space = upload_space
        self._uploaded = 0

    def add_picture(self, base: str, picture: Picture, lifetime: float) -> str:
        """A new URL under `base` for a picture."""
        name = f"{secrets.token_hex(12)}.{_ENDINGS[picture.format]}"
        url = f"{base}/{name}"
        self._add(name, Link(url=url, expires=time.monotonic() + lifetime, picture=picture))
        return url

    async def add_upload(self, base: str, upload: Upload, lifetime: float) -> str:
        """A new URL under `base` for a copy of an uploaded file."""
        name = f"{secrets.token_hex(12)}.{_ENDINGS[upload.format or 'png']}"
        path = Path(self._folder.name) / name
        await asyncio.to_thread(_copy, upload, path)
        url = f"{base}/{name}"
        self._add(name, Link(url=url, expires=time.monotonic() + lifetime, upload=upload, path=path))
        return url

    def find(self, name: str) -> Link | None:
        """The link of this name, expired or not."""
        return self._links.get(name)

    def find_upload(self, url: str) -> Upload | None:
        """The file of an upload's URL; None when the link has expired."""
        link = self._links.get(url.rpartition("/")[2])
        if link is None or link.url != url or link.is_expired:
            return None
        return link.upload

    def _add(self, name: str, link: Link) -> None:
        self._links[name] = link
        self._uploaded += link.upload.length if link.upload else 0
        while len(self._links) > self._most_links or self._uploaded > self._upload_space:
            self._forget(self._links.popitem(last=False)[1])

    def _forget(self, link: Link) -> None:
        if link.path is not None:
            link.path.unlink(missing_ok=True)
        self._uploaded -= link.upload.length if link.upload else 0

    def clear(self) -> None:
        while self._links:
            self._forget(self._links.popitem(last=False)[1])

    def close(self) -> None:
        self._folder.cleanup()


def _copy(upload: Upload, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(upload.file, target, 1024 * 1024)
