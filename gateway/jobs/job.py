"""What is to be made, free of any vendor and of HTTP: the job a caller wants, and the calls that make it.

`wire` makes an ImageJob, `fanout` turns it into Calls, `upstreams` write them in a vendor's dialect.
"""

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

    `explicit` names the parameters that the caller set, `dropped` those that no upstream takes; `end_user` is who asks
    the caller (`safety_identifier`, else `user`).
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
    """One paid POST at a target, for the slots it names. None means: not sent.

    `slots` are indexes into the task's n images; `compression` is 0-100 and never for png; `callback_url` is where the
    vendor may tell of its end.
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
    """A job's pictures as one upstream wants them: converted, or uploaded and known by `urls`. Shared by its calls.

    `takes_callback`: its submission has a parameter for an address to call back at.
    """

    references: tuple[Picture, ...] = ()
    mask: Picture | None = None
    urls: tuple[str, ...] = ()
    takes_callback: bool = False


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as an upstream counted them; None is what it did not count."""

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
    """One image in an upstream's answer: its bytes, or a link that the fetcher may follow."""

    blob: Blob | None = None
    url: str | None = None
    revised_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """What an upstream made for one call, and what it says that it cost, in tokens or in credits of its own."""

    images: tuple[FoundImage, ...]
    usage: TokenUsage | None = None
    credits: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """A vendor's promise: its task's id, and the path to ask at."""

    id: str
    poll_path: str


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
