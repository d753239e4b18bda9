"""The image job: a caller's wish without any vendor or HTTP, its fingerprint, its calls, and a vendor's answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from gateway.jobs.sizes import Shape, Size
from gateway.pictures.picture import Picture
from gateway.pictures.spool import Blob

Operation = Literal["generation", "edit"]
Quality = Literal["low", "medium", "high"]
Format = Literal["png", "jpeg", "webp"]
Background = Literal["auto", "opaque", "transparent"]


@dataclass(frozen=True, slots=True)
class ImageJob:
    """n images of one prompt. `size` None is `auto`, `quality` None is `auto`; references only on edits.

    `explicit` names the parameters that the caller set, `dropped` those that no upstream takes. `end_user` is the
    caller's own user (`safety_identifier`, else `user`).
    """

    operation: Operation
    prompt: str
    n: int = 1
    size: Size | Shape | None = None
    quality: Quality | None = None
    background: Background = "auto"
    output_format: Format = "png"
    output_compression: int | None = None
    moderation: Literal["auto", "low"] = "auto"
    references: tuple[Picture, ...] = ()
    mask: Picture | None = None
    end_user: str | None = None
    explicit: frozenset[str] = frozenset()
    dropped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        asked = f"{self.operation}, n={self.n}, {self.size or 'auto'}, {self.quality or 'auto'}, {self.output_format}"
        return f"ImageJob({asked}, {len(self.references)} references, mask={self.mask is not None})"


@dataclass(frozen=True, slots=True)
class Call:
    """One paid POST at a target, for some slots of a task. None means: not sent.

    `slots` are indexes into the task's n images. `compression` is 0-100 and never for png. `callback_url` is for the
    vendor's callback.
    """

    id: str
    slots: tuple[int, ...]
    operation: Operation
    prompt: str = field(repr=False)
    size: Size | Shape | None
    quality: Quality | None
    output_format: Format | None
    compression: int | None
    moderation: Literal["low"] | None
    background: Background | None = None
    end_user: str | None = field(default=None, repr=False)
    callback_url: str | None = field(default=None, repr=False)

    @property
    def n(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class Inputs:
    """A job's pictures as one upstream takes them: converted, or uploaded to `urls`. All calls share them.

    `takes_callback`: the upstream's submission has a parameter for a callback URL.
    """

    references: tuple[Picture, ...] = ()
    mask: Picture | None = None
    urls: tuple[str, ...] = ()
    takes_callback: bool = False


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as an upstream counted them; None where it did not."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    text_tokens: int | None = None
    image_tokens: int | None = None

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.total_tokens + other.total_tokens,
            _add(self.text_tokens, other.text_tokens),
            _add(self.image_tokens, other.image_tokens),
        )


def _add(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


@dataclass(frozen=True, slots=True)
class FoundImage:
    """One image in an upstream's answer: its bytes, or a link to download."""

    blob: Blob | None = None
    url: str | None = None
    revised_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """An upstream's images for one call, and its cost in tokens or in the upstream's own credits."""

    images: tuple[FoundImage, ...]
    usage: TokenUsage | None = None
    credits: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """A vendor's task: its id, and the path to poll."""

    id: str
    poll_path: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """The facts by which a request repeats an earlier one. Digests are SHA-256 in hex; "" matches nothing.

    `idempotency` is the digest of the operation and the Idempotency-Key. `retry` is the SDK's count of earlier
    attempts, `patience` the seconds until the SDK's time-out, 0 if unknown. `form` task: the answer is the task.
    """

    fingerprint: str = ""
    idempotency: str = ""
    retry: int = 0
    patience: float = 0.0
    form: Literal["answer", "task"] = "answer"


def take_fingerprint(job: ImageJob, model: str, upstream: str | None) -> str:
    """The digest of a job, its model and its chosen upstream, without the form of the answer.

    Blocks while it reads pictures that are files: call it in a thread then.
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
    """The digest of an Idempotency-Key and its operation, so that each operation may use the same key."""
    return hashlib.sha256(f"{operation}\0{idempotency_key}".encode()).hexdigest()


def _hash_of(picture: Picture) -> str:
    return picture.blob.digest()
