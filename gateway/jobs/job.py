"""The image job: a caller's request without vendor or HTTP, its fingerprint, its calls, and a vendor's answers."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from gateway.pictures.spool import Blob

if TYPE_CHECKING:
    # For types alone: the catalogue, which the supervisor and every command read, needs no picture library.
    from gateway.pictures.picture import Picture

Operation = Literal["generation", "edit"]
Quality = Literal["low", "medium", "high"]
Format = Literal["png", "jpeg", "webp"]
Background = Literal["auto", "opaque", "transparent"]


@dataclass(frozen=True, slots=True)
class Passed:
    """A parameter that goes to upstreams as it came. `changes_picture` is True when the picture depends on it."""

    name: str
    value: str | int = field(repr=False)
    changes_picture: bool = False


@dataclass(frozen=True, slots=True)
class ImageJob:
    """A request for `n` images of one prompt. A `size` or `quality` of None is `auto`. Only edits have references.

    `scaled_to` is the size to deliver if the model serves one by scaling; `size` is then the legal size to make.
    Otherwise it is None. `passed` are the parameters to pass on, without those that have their default. `explicit`
    names the parameters that the caller set, `dropped` those that no upstream takes. `end_user` is the caller's own
    user (`safety_identifier`, else `user`).
    """

    operation: Operation
    prompt: str
    n: int = 1
    size: Size | Shape | None = None
    quality: Quality | None = None
    background: Background = "auto"
    output_format: Format = "png"
    output_compression: int | None = None
    passed: tuple[Passed, ...] = ()
    references: tuple[Picture, ...] = ()
    mask: Picture | None = None
    end_user: str | None = None
    explicit: frozenset[str] = frozenset()
    dropped: tuple[str, ...] = ()
    scaled_to: Size | None = None

    @property
    def size_asked(self) -> Size | Shape | None:
        """The size that the caller asked for; None is `auto`."""
        return self.scaled_to or self.size

    def __repr__(self) -> str:
        asked = (
            f"{self.operation}, n={self.n}, {self.size_asked or 'auto'}, {self.quality or 'auto'}, {self.output_format}"
        )
        return f"ImageJob({asked}, {len(self.references)} references, mask={self.mask is not None})"


@dataclass(frozen=True, slots=True)
class Sent:
    """The parameters that one target receives, beside prompt and pictures. A parameter of None is not sent.

    `compression` is 0-100, and None for a picture that the gateway re-encodes.
    """

    size: Size | Shape | None = None
    quality: Quality | None = None
    output_format: Format | None = None
    compression: int | None = None
    background: Background | None = None
    end_user: str | None = field(default=None, repr=False)
    passed: tuple[Passed, ...] = ()

    @property
    def passed_fields(self) -> dict[str, str | int]:
        """The values of `passed` by their names."""
        return {one.name: one.value for one in self.passed}


@dataclass(frozen=True, slots=True)
class Call:
    """One paid POST at a target, for some slots of a task.

    `slots` are indexes, from 0, into the task's images. `callback_url` is for the vendor's callback; None is not sent.
    """

    id: str
    slots: tuple[int, ...]
    operation: Operation
    prompt: str = field(repr=False)
    sent: Sent
    callback_url: str | None = field(default=None, repr=False)

    @property
    def n(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class Inputs:
    """A job's pictures as one target takes them: converted, or uploaded to `urls`. All its calls there share them.

    `takes_callback` is True when the upstream's submission has a parameter for a callback URL.
    """

    references: tuple[Picture, ...] = ()
    mask: Picture | None = None
    urls: tuple[str, ...] = ()
    takes_callback: bool = False


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as an upstream counted them; `text_tokens` and `image_tokens` are None where it did not split them."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    text_tokens: int | None = None
    image_tokens: int | None = None

    @property
    def is_consistent(self) -> bool:
        """True when the counts can be those of a picture: some output, and a total that is the sum."""
        return self.output_tokens > 0 and self.input_tokens + self.output_tokens == self.total_tokens

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
    """An upstream's images for one call, and the call's tokens or credits, None where the upstream reports none."""

    images: tuple[FoundImage, ...]
    usage: TokenUsage | None = None
    credits: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """A vendor's task: its id, and the path to poll, "" where it is not known."""

    id: str
    poll_path: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """The facts by which a request repeats an earlier one. Digests are SHA-256 in hex; "" matches nothing.

    `idempotency` is the digest of the operation and the Idempotency-Key. `retry` is the SDK's count of earlier
    attempts, `patience` the seconds until the SDK's time-out, 0 if unknown. With the form `task` the answer is the
    task, with `answer` its images.
    """

    fingerprint: str = ""
    idempotency: str = ""
    retry: int = 0
    patience: float = 0.0
    form: Literal["answer", "task"] = "answer"


_SORTED_JSON = json.JSONEncoder(sort_keys=True)


def take_fingerprint(job: ImageJob, model: str, upstream: str | None) -> str:
    """The digest of a job, its model and its chosen upstream, without the form of the answer.

    Blocks while it reads pictures that are files: call it in a thread if there are any.
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
        # Stored digests have it, absent or not. Of other passed parameters only the present ones count.
        "moderation": "auto",
        "references": [_hash_of(picture) for picture in job.references],
        "mask": _hash_of(job.mask) if job.mask else None,
        "end_user": job.end_user,
        "dropped": sorted(job.dropped),
    }
    if job.scaled_to is not None:
        asked["scaled_to"] = str(job.scaled_to)
    asked |= {one.name: one.value for one in job.passed}
    return hashlib.sha256(_SORTED_JSON.encode(asked).encode()).hexdigest()


def digest_key(operation: str, idempotency_key: str) -> str:
    """The digest of an Idempotency-Key and its operation, so that each operation may use the same key."""
    return hashlib.sha256(f"{operation}\0{idempotency_key}".encode()).hexdigest()


def _hash_of(picture: Picture) -> str:
    return picture.blob.digest()


EDGE_STEP = 16
MAX_EDGE = 3840
MAX_RATIO = 3
MIN_PIXELS = 655_360
MAX_PIXELS = 8_294_400

TIERS = {"1K": 1536, "2K": 2048, "4K": 3840}
"""The long edge of a resolution tier in pixels. A square at 1K has 1024, the upstreams' own default."""

_SIZE = re.compile(r"([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})")
_RATIO = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Shape:
    """A ratio and a resolution tier, as in `16:9` at `2K`."""

    wide: int
    high: int
    tier: str

    def __str__(self) -> str:
        return f"{self.ratio}@{self.tier}"

    @property
    def ratio(self) -> str:
        return f"{self.wide}:{self.high}"


SQUARE = Size(1024, 1024)


def make_shape(wide: int, high: int, tier: str) -> Shape:
    """A Shape in lowest terms. In place of 7:3 and 3:7 it has 21:9 and 9:21, their usual forms."""
    factor = math.gcd(wide, high)
    wide, high = wide // factor, high // factor
    if sorted((wide, high)) == [3, 7]:
        wide, high = wide * 3, high * 3
    return Shape(wide, high, tier)


def parse_size(text: str) -> Size | None:
    """A text such as `1536x1024` as a Size, legal or not; None for other text."""
    match = _SIZE.fullmatch(text.strip())
    return Size(int(match[1]), int(match[2])) if match else None


def parse_ratio(text: str) -> tuple[int, int] | None:
    """A text such as `16:9` as two integers; None for other text."""
    match = _RATIO.fullmatch(text.strip())
    return (int(match[1]), int(match[2])) if match else None


def find_fault(size: Size) -> str | None:
    """The rule of gpt-image-2 that a size breaks, and a right value, as a sentence; None for a legal size."""
    rule = _find_broken_rule(size)
    return rule and f"{rule}; the nearest legal size is {nearest_legal(size.width, size.height)}"


def _find_broken_rule(size: Size) -> str | None:
    long, short = max(size.width, size.height), min(size.width, size.height)
    if size.width % EDGE_STEP or size.height % EDGE_STEP:
        return f"both edges must be multiples of {EDGE_STEP}"
    if long > MAX_EDGE:
        return f"no edge may be longer than {MAX_EDGE} pixels"
    if long > MAX_RATIO * short:
        return f"the long edge may be at most {MAX_RATIO} times the short one"
    if not MIN_PIXELS <= size.pixels <= MAX_PIXELS:
        return f"width x height must be {MIN_PIXELS:,} to {MAX_PIXELS:,} pixels; {size} has {size.pixels:,}"
    return None


def resolve(shape: Shape) -> Size:
    """The legal size of a ratio and a tier: 16:9 at 2K is 2048x1152, 1:1 at 4K is 2880x2880."""
    if shape.wide == shape.high and shape.tier == "1K":
        return SQUARE
    long = TIERS[shape.tier]
    ratio = max(shape.wide, shape.high) / min(shape.wide, shape.high)
    # A shape near 1:1 at 4K exceeds the pixel limit: scale both edges by the same factor.
    if long * long / ratio > MAX_PIXELS:
        long = _down(math.sqrt(MAX_PIXELS * ratio))
    short = _near(long / ratio)
    if long * short > MAX_PIXELS:
        short -= EDGE_STEP
    return Size(long, short) if shape.wide >= shape.high else Size(short, long)


def nearest_legal(width: int, height: int, pixels: int | None = None) -> Size:
    """The legal size nearest to a picture's shape, with about `pixels` pixels (by default its own number)."""
    ratio = min(max(width, height) / min(width, height), MAX_RATIO)
    area = min(max(pixels or width * height, MIN_PIXELS), MAX_PIXELS)
    long = min(_near(math.sqrt(area * ratio)), MAX_EDGE)
    short = _near(long / ratio)
    # Rounding each edge to 16 may exceed a limit: change one edge by one step at a time.
    while long * short > MAX_PIXELS:
        long, short = (long, short - EDGE_STEP) if short < long else (long - EDGE_STEP, short)
    while long * short < MIN_PIXELS or long > MAX_RATIO * short:
        short += EDGE_STEP
    long, short = max(long, short), min(long, short)
    return Size(long, short) if width >= height else Size(short, long)


def snap(size: Size, among: Sequence[Size]) -> Size:
    """The nearest size in `among`, edges compared as ratios: one of the same orientation if there is any."""

    def distance(made: Size) -> float:
        return abs(math.log(made.width / size.width)) + abs(math.log(made.height / size.height))

    def turn(one: Size) -> int:
        return (one.width > one.height) - (one.width < one.height)

    return min([made for made in among if turn(made) == turn(size)] or among, key=distance)


def snap_shape(size: Size, among: Sequence[Size]) -> Size:
    """The size in `among` whose shape is nearest to that of `size`, and of equal shapes the nearest in area."""
    ratio = size.width / size.height

    def distance(made: Size) -> tuple[float, float]:
        return round(abs(math.log(made.width / made.height / ratio)), 6), abs(math.log(made.pixels / size.pixels))

    return min(among, key=distance)


def _near(edge: float) -> int:
    return max(EDGE_STEP, EDGE_STEP * round(edge / EDGE_STEP))


def _down(edge: float) -> int:
    return EDGE_STEP * int(edge / EDGE_STEP)
