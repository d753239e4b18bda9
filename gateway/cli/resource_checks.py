"""The checks of the services that the settings name: Redis, and the storage of pictures.

Writes and removes a small test file in the storage. Starts no server.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.artifacts.artifact import ArtifactStore, LocalArtifacts
from gateway.process.data_folder import load_secrets
from gateway.process.settings import Settings, StartRefused
from gateway.server.store_checks import StoreSilentAtStart, check_store
from gateway.services import open_artifacts

Level = Literal["error", "warning"]
FaultKind = Literal["store_refused", "store_unavailable", "store_may_forget", "storage_refused", "storage_unavailable"]


@dataclass(frozen=True, slots=True)
class ResourceFault:
    """A fault of a service. With an `error` the gateway does not start, or makes no picture."""

    level: Level
    kind: FaultKind
    text: str


def check_redis(settings: Settings, url: str) -> Iterator[ResourceFault]:
    """Connect to the store at `url`, and yield its faults. Writes nothing."""
    try:
        doubt = asyncio.run(check_store(url, load_secrets(settings), 0, may_write=False))
    except StoreSilentAtStart as error:
        yield ResourceFault("warning", "store_unavailable", str(error))
    except StartRefused as error:
        yield ResourceFault("error", "store_refused", str(error))
    else:
        if doubt:
            yield ResourceFault("warning", "store_may_forget", doubt)


def check_storage(settings: Settings, ttl_s: int) -> Iterator[ResourceFault]:
    """Write and remove a small test file in the storage of pictures, and yield its faults.

    A storage folder that does not exist is not created; the check tries whether it can be.
    """
    try:
        storage = open_artifacts(settings, ttl_s)
    except StartRefused as error:
        yield ResourceFault("error", "storage_refused", str(error))
        return
    if isinstance(storage, LocalArtifacts) and not storage.folder.exists():
        if fault := _find_obstacle(storage.folder):
            yield ResourceFault("error", "storage_refused", f"{_name_storage(settings)}: {fault}")
        return
    readiness = asyncio.run(_ask(storage))
    if readiness is not None:
        level, kind, text = readiness
        yield ResourceFault(level, kind, f"{_name_storage(settings)}: {text}")


async def _ask(storage: ArtifactStore) -> tuple[Level, Literal["storage_refused", "storage_unavailable"], str] | None:
    try:
        found = await storage.check()
    finally:
        await storage.close()
    if found.is_writable:
        return None
    if isinstance(storage, LocalArtifacts):
        return "error", "storage_refused", f"cannot be written ({found.reason}). Name a folder that this user may write"
    for pattern, text in _CLOUD_FAULTS:
        if re.search(pattern, found.reason):
            return "error", "storage_refused", text
    return "warning", "storage_unavailable", f"does not answer ({found.reason})"


_CLOUD_FAULTS = (
    (
        r"169\.254\.169\.254|metadata",
        "no credentials are set. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://, "
        "GOOGLE_SERVICE_ACCOUNT for gs://, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY for az://",
    ),
    (
        r"PermissionDenied|Unauthenticated|\b40[13]\b",
        "refuses the credentials. Check the key, its secret and the region; the key must be able to read, write, list "
        "and delete objects",
    ),
    (r"NotFound|NoSuchBucket|\b404\b", "there is no such bucket. Create it, or correct its name or the endpoint"),
)
"""Patterns in a storage's reason, and their meaning for an operator. Without credentials the library asks the machine's
cloud for some."""


def _find_obstacle(folder: Path) -> str | None:
    """The reason why a folder cannot be made; None if it can. Makes and removes another folder in its parent."""
    parent = next(one for one in folder.parents if one.exists() or one == one.parent)
    if not parent.is_dir():
        return f"cannot be made, since {parent} is no folder"
    try:
        # Not the permissions: they say nothing of a read-only file system, and nothing to root.
        Path(tempfile.mkdtemp(dir=parent)).rmdir()
    except OSError as error:
        return f"cannot be made in {parent} ({error.strerror}). Name a folder that this user may write"
    return None


def _name_storage(settings: Settings) -> str:
    if settings.storage_url is None:
        return f"GATEWAY_DATA_DIR: {settings.data_dir}/artifacts"
    # The query may hold a secret.
    return f"GATEWAY_STORAGE_URL: {settings.storage_url.partition('?')[0]}"
