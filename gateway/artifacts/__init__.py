"""Artifacts: stored pictures with a link, in a folder or in object storage, until they expire.

This module inspects only the first bytes of a picture.
"""

from gateway.artifacts.artifact import (
    Artifact,
    ArtifactStore,
    ArtifactsUnavailable,
    Readiness,
    Stored,
    remove_expired,
)
from gateway.artifacts.storage import open_store

__all__ = [
    "Artifact",
    "ArtifactStore",
    "ArtifactsUnavailable",
    "Readiness",
    "Stored",
    "open_store",
    "remove_expired",
]
