"""The storage of artifacts that `GATEWAY_STORAGE_URL` names. No message holds the URL's query: it may be a secret."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gateway.artifacts.artifact import ArtifactStore, LocalArtifacts

_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")


def open_store(url: str | None, folder: Path, ttl_s: int) -> ArtifactStore:
    """Open the store at `url`, or in `folder` if it is None. Artifacts live `ttl_s` seconds. Connects to nothing yet.

    `s3://bucket/prefix?endpoint=https://…&region=…`, `gs://bucket/prefix`, `az://container/prefix`: options are
    those of the library (https://developmentseed.org/obstore), in the query or as AWS_*, GOOGLE_* and AZURE_*
    variables.
    `file:///path` is a folder that replicas may share. Raises ValueError, whose message never holds the query.
    """
    if url is None:
        return LocalArtifacts(folder, ttl_s)
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError("a file: storage URL needs an absolute path: file:///srv/pictures")
        return LocalArtifacts(Path(unquote(parts.path)), ttl_s)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise ValueError("a storage URL starts with s3://, gs://, az:// or file://, followed by the bucket or path")
    # Loaded here: its library takes 4 MB and 10 ms of a start, and most gateways keep their pictures in a folder.
    opened: ArtifactStore = import_module("gateway.artifacts.objects").open_objects(url, ttl_s)
    return opened
