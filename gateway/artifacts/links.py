"""Signed links to artifacts. A link opens one artifact until the link expires."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from gateway.artifacts.artifact import format_of
from gateway.net.outside_text import read_count, read_query, read_url

_VERSION = "v1"
_EXPIRES = re.compile(r"[1-9][0-9]{0,11}")
_PATH = re.compile(r"(?:/[^/]*)*/v1/artifacts/([^/]+)")


def link(artifact_id: str, expires: int, key: bytes) -> str:
    """The path and query of a link, valid until `expires` (unix seconds). Raises ValueError for a wrong id."""
    return f"/v1/artifacts/{artifact_id}?{sign(artifact_id, expires, key)}"


def sign(artifact_id: str, expires: int, key: bytes) -> str:
    """The query string of a link, valid until `expires` (unix seconds). Raises ValueError for a wrong id."""
    if format_of(artifact_id) is None:
        raise ValueError("this is not the id of an artifact")
    return f"exp={expires}&sig={_signature(artifact_id, str(expires), key)}"


def verify(artifact_id: str, query: str, now: float, key: bytes) -> bool:
    """True when the key signed the link and `now` (unix seconds) is before its end. Ignores other parameters."""
    fields = read_query(query)
    if format_of(artifact_id) is None or fields is None:
        return False
    expires = [value for name, value in fields if name == "exp"]
    given = [value for name, value in fields if name == "sig"]
    if len(expires) != 1 or len(given) != 1 or not _EXPIRES.fullmatch(expires[0]):
        return False
    end, expected = read_count(expires[0]), _signature(artifact_id, expires[0], key)
    return hmac.compare_digest(given[0].encode(errors="replace"), expected.encode()) and now < (end or 0)


def find_artifact(url: str, now: float, key: bytes) -> str | None:
    """The id of the artifact that a URL opens, on any host; None if it has expired or the key did not sign it."""
    parts = read_url(url)
    found = _PATH.fullmatch(parts.path) if parts else None
    if parts is None or found is None:
        return None
    return found[1] if verify(found[1], parts.query, now, key) else None


def _signature(artifact_id: str, expires: str, key: bytes) -> str:
    message = f"imagegate artifact {_VERSION}\n{artifact_id}\n{expires}".encode()
    digest = hmac.digest(key, message, hashlib.sha256)
    return f"{_VERSION}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
