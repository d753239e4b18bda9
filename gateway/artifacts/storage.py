"""The storage of artifacts that `GATEWAY_STORAGE_URL` names. No message holds the URL's query: it may be a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from obstore.exceptions import BaseError
from obstore.store import from_url

from gateway.artifacts.artifact import ArtifactStore, LocalArtifacts
from gateway.artifacts.objects import ObjectArtifacts

_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")

_CLIENT: dict[str, Any] = {"connect_timeout": "5s", "timeout": "600s"}
"""`timeout` is for a whole download, whose reader may be slow; the library's default is 30 s."""

_RETRY: dict[str, Any] = {"max_retries": 5}


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
    options: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    plain = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    # This code does not see an endpoint in the environment; an operator who sets one to http:// wants http.
    client = _CLIENT | {"allow_http": not options.get("endpoint", "").startswith("https://")}
    try:
        store = from_url(plain, config=options or None, client_options=client, retry_config=_RETRY)  # type: ignore[call-overload]
    except (BaseError, ValueError) as error:
        names = ", ".join(options) or "none"
        raise ValueError(f"the storage URL {plain} cannot be opened; its options: {names}") from error
    return ObjectArtifacts(store, ttl_s)
