"""Whether two requests ask for the same pictures: one digest of what they ask for, and how a repetition is told.

Made by the image routes, compared by the ledger. Never sees a boundary, a field's place or a form of answer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from gateway.jobs.job import ImageJob
from gateway.pictures.picture import Picture


@dataclass(frozen=True, slots=True)
class Repeat:
    """How a request may be one that was made before. Digests are SHA-256 in hex; without a fingerprint it is none.

    `idempotency` is of the route and its Idempotency-Key. `retry` is how often the caller's SDK says that it has asked
    already, `patience` the seconds until its own time-out, 0 where it did not say. `form` task: it is answered with the
    task itself.
    """

    fingerprint: str = ""
    idempotency: str = ""
    retry: int = 0
    patience: float = 0.0
    form: Literal["answer", "task"] = "answer"


def take_fingerprint(job: ImageJob, model: str, upstream: str | None) -> str:
    """The digest of what is asked for and by whom. The same pictures may be answered in another form.

    Blocks while pictures that are files are read, so call it in a thread then.
    """
    asked = {
        "operation": job.operation,
        "model": model,
        "upstream": upstream,
        "prompt": job.prompt,
        "n": job.n,
        "size": str(job.size) if job.size else None,
        "quality": job.quality,
        "background": job.background,
        "output_format": job.output_format,
        "output_compression": job.output_compression,
        "moderation": job.moderation,
        "references": [_hash_of(picture) for picture in job.references],
        "mask": _hash_of(job.mask) if job.mask else None,
        "end_user": job.end_user,
        "dropped": sorted(job.dropped),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def digest_key(operation: str, idempotency_key: str) -> str:
    """What an Idempotency-Key is known by: its route counts, so that one key may be used on each."""
    return hashlib.sha256(f"{operation}\0{idempotency_key}".encode()).hexdigest()


def _hash_of(picture: Picture) -> str:
    return picture.blob.digest()
