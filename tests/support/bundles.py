"""Support bundles, opened: what each member of the archive holds."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

FOLDER = "imagegate-support/"


def read_bundle(path: Path) -> dict[str, bytes]:
    """The members of an archive by their names inside its only folder."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = {name: archive.read(name) for name in archive.namelist()}
    else:
        with tarfile.open(path) as archive:
            found = {one.name: file.read() for one in archive if (file := archive.extractfile(one)) is not None}
    assert all(name.startswith(FOLDER) for name in found)
    return {name.removeprefix(FOLDER): data for name, data in found.items()}
