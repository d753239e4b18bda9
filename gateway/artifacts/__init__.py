"""Temporary local-only version; the real package replaces it."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

import pybase64

from gateway.ids import new_id
from gateway.pictures import Picture, sniff
from gateway.spool import Blob


@dataclass(frozen=True, slots=True)
class Artifact:
    id: str
    format: str
    width: int
    height: int
    size: int
    sha256: str
    created: int
    expires: int


class ArtifactStore:
    def __init__(self, folder: Path, ttl_s: int) -> None:
        self._folder = folder
        self._ttl = ttl_s

    async def put(self, picture: Picture) -> Artifact:
        now = int(time.time())
        self._folder.mkdir(parents=True, exist_ok=True)
        aid = f"{new_id('img')}.{picture.format}"
        path = self._folder / aid
        if picture.blob.path:
            shutil.copy(picture.blob.path, path)
        else:
            path.write_bytes(picture.blob.data or b"")
        return Artifact(
            aid,
            picture.format,
            picture.width,
            picture.height,
            picture.blob.size,
            picture.blob.sha256,
            now,
            now + self._ttl,
        )

    async def open(self, artifact_id: str) -> tuple[int, AsyncIterator[bytes]] | None:
        path = self._folder / artifact_id
        if not path.exists():
            return None
        size = path.stat().st_size
        return size, Blob(size, "", path=path).chunks()

    async def check(self) -> str | None:
        return None

    async def sweep(self, now: float) -> int:
        return 0

    async def close(self) -> None:
        pass


def open_store(url: str | None, folder: Path, ttl_s: int) -> ArtifactStore:
    return ArtifactStore(folder, ttl_s)


def sign(artifact_id: str, expires: int, key: bytes) -> str:
    return f"exp={expires}&sig=" + hmac.new(key, f"{artifact_id}:{expires}".encode(), "sha256").hexdigest()


def verify(artifact_id: str, query: str, now: int, key: bytes) -> bool:
    q = parse_qs(query)
    exp = int(q.get("exp", ["0"])[0])
    return exp > now and query == sign(artifact_id, exp, key)


def matches(head: bytes, artifact_id: str) -> bool:
    return sniff(head) == artifact_id.rpartition(".")[2]


def media_type_of(artifact_id: str) -> str:
    return "image/" + artifact_id.rpartition(".")[2]


def base64_length(size: int) -> int:
    return (size + 2) // 3 * 4


async def base64_chunks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        data = rest + chunk
        cut = len(data) - len(data) % 3
        rest = data[cut:]
        yield pybase64.b64encode(data[:cut])
    if rest:
        yield pybase64.b64encode(rest)
