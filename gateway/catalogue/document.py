"""The catalogue as it is written: every section and field of the file, with the form of a right value.

It knows no file and no environment. The JSON schema for editors comes from it; `upstream` holds the upstreams' section.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from gateway.catalogue.upstream import Bytes, CatalogueName, CataloguePart, Seconds, Upstream, WholeSeconds
from gateway.jobs.job import (
    MAX_EDGE,
    MAX_RATIO,
    Operation,
    Quality,
    Size,
    find_fault,
    make_shape,
    parse_ratio,
    parse_size,
)

Strategy = Literal["cost", "priority", "weighted", "latency"]
"""The order of the targets that honour a request: price, catalogue, weighted chance, or measured seconds."""

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

OtherSize = Literal["tell", "resize", "refuse"]

MIN_SCALED_EDGE = 64
"""The shortest edge, in pixels, of a size that the gateway delivers by scaling."""


class Model(CataloguePart):
    """A public model name and its upstreams. Their order counts for `priority`, and breaks ties elsewhere."""

    upstreams: tuple[CatalogueName, ...] = Field(
        min_length=1,
        strict=False,
        description="In the catalogue's order, which decides where the strategy finds no difference.",
    )
    strategy: Strategy = Field(
        "cost",
        description="`cost`: the cheapest for this request first. `priority`: in the order of `upstreams`. `weighted`: "
        "by chance, in proportion to the credentials' `weight`. `latency`: the fastest first, as measured.",
    )
    sizes: Literal["exact", "nearest"] = Field(
        "exact", description="`nearest`: an upstream may make another size, reported in a header."
    )
    compromises: Literal["tell", "refuse"] = Field(
        "tell",
        description="`refuse`: never use a target that cannot honour a size, quality, n, mask or format that was set.",
    )
    other_size: OtherSize = Field(
        "tell",
        description="A picture of another size than the gateway asked for is delivered and reported (`tell`), resized "
        "(`resize`), or kept back with an error (`refuse`). It is paid for in any case.",
    )


class Alias(CataloguePart):
    """Another public name of a model, with its own default `response_format` and scaled sizes."""

    model: CatalogueName
    response_format: Literal["b64_json", "url"] = "b64_json"
    scaled_sizes: tuple[str, ...] = Field(
        (),
        strict=False,
        max_length=50,
        description="Sizes, as in 512x512, that the gateway delivers under this name by scaling. It asks for the "
        "nearest size of that shape.",
    )

    @field_validator("scaled_sizes")
    @classmethod
    def _check_sizes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(_read_scaled_size(one)) for one in value)


RequestedSize = Annotated[str, Field(min_length=1, max_length=32)]


class When(CataloguePart):
    """The conditions of a rule. The rule applies to a request that meets all of them."""

    operation: Operation | None = Field(None, description="`generation` or `edit`.")
    models: tuple[CatalogueName, ...] | None = Field(
        None,
        min_length=1,
        strict=False,
        description="Public names of models or aliases. A model stands for its aliases too.",
    )
    sizes: tuple[RequestedSize, ...] | None = Field(
        None,
        min_length=1,
        strict=False,
        description="As in the request: WIDTHxHEIGHT, a ratio such as 16:9, or `auto`.",
    )
    min_pixels: int | None = Field(
        None, ge=1, description="Of the requested size; for `auto`, of the size that would be made."
    )
    max_pixels: int | None = Field(None, ge=1, description="The same.")
    qualities: tuple[Quality | Literal["auto"], ...] | None = Field(
        None, min_length=1, strict=False, description="As in the request; `auto` if it has none."
    )
    min_n: int | None = Field(None, ge=1, le=10)
    max_n: int | None = Field(None, ge=1, le=10)
    mask: bool | None = Field(None, description="True when the request has a mask.")
    min_references: int | None = Field(None, ge=0, le=16, description="Images of an edit; a generation has none.")
    max_references: int | None = Field(None, ge=0, le=16)
    keys: tuple[str, ...] | None = Field(
        None, min_length=1, strict=False, description="Callers' keys, by id or by name."
    )
    teams: tuple[str, ...] | None = Field(None, min_length=1, strict=False, description="The teams of callers' keys.")

    @field_validator("sizes")
    @classmethod
    def _check_sizes(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(_read_requested_size(one) for one in value)

    @model_validator(mode="after")
    def _check_ranges(self) -> When:
        for what in ("pixels", "n", "references"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{what} is more than max_{what}, so no request would match")
        if self.operation == "generation" and (self.mask or self.min_references):
            raise ValueError("a generation has neither a mask nor references, so no request would match")
        return self


class Defaults(CataloguePart):
    """The values of parameters that the caller leaves out or sets to `auto`."""

    size: str | None = Field(None, description="WIDTHxHEIGHT, such as 1024x1024.")
    quality: Quality | None = Field(None)

    @field_validator("size")
    @classmethod
    def _check_size(cls, value: str | None) -> str | None:
        return None if value is None else str(_read_size(value))


class Rule(CataloguePart):
    """Other settings for some requests. The first rule that matches a request applies, alone."""

    name: str | None = Field(
        None, min_length=1, max_length=100, description="The name of the rule in messages; without it, its number."
    )
    when: When = Field(default_factory=lambda: When(), description="Without it, the rule applies to every request.")
    upstreams: tuple[CatalogueName, ...] | None = Field(
        None, min_length=1, strict=False, description="Only these of the model's upstreams, in this order."
    )
    strategy: Strategy | None = Field(None, description="In place of the model's.")
    defaults: Defaults = Field(default_factory=lambda: Defaults())
    sizes: Literal["exact", "nearest"] | None = Field(None, description="In place of the model's.")
    compromises: Literal["tell", "refuse"] | None = Field(None, description="In place of the model's.")
    other_size: OtherSize | None = Field(None, description="In place of the model's.")

    @model_validator(mode="after")
    def _check_effect(self) -> Rule:
        if not self.model_dump(exclude={"name", "when"}, exclude_none=True, exclude_defaults=True):
            raise ValueError("changes nothing; give upstreams, strategy, defaults, sizes, compromises or other_size")
        return self


def _read_requested_size(text: str) -> str:
    """A size, a ratio, or `auto`, in the form in which requests are compared with it. Raises ValueError."""
    ratio = parse_ratio(text)
    if ratio is not None:
        return make_shape(*ratio, "1K").ratio
    return text if text == "auto" else str(_read_size(text))


def _read_scaled_size(text: str) -> Size:
    size = _read_pixels(text)
    if not MIN_SCALED_EDGE <= min(size.width, size.height) <= max(size.width, size.height) <= MAX_EDGE:
        raise ValueError(f"{text} is not possible: edges are {MIN_SCALED_EDGE} to {MAX_EDGE} pixels")
    if max(size.width, size.height) > MAX_RATIO * min(size.width, size.height):
        raise ValueError(f"{text} is not possible: the long edge is at most {MAX_RATIO} times the short one")
    return size


def _read_pixels(text: str) -> Size:
    size = parse_size(text)
    if size is None:
        raise ValueError(f"{text!r} is not a size; write WIDTHxHEIGHT, such as 1024x1024")
    return size


def _read_size(text: str) -> Size:
    size = _read_pixels(text)
    if fault := find_fault(size):
        raise ValueError(f"{text} is not possible: {fault}")
    return size


class Limits(CataloguePart):
    """Limits on requests and on the gateway's resources, in bytes, seconds, pixels and numbers."""

    body_bytes: Bytes = Field(256 * 2**20, ge=2**20, description="One request's body.")
    image_bytes: Bytes = Field(50 * 2**20, ge=2**10, description="One image.")
    images: int = Field(16, ge=1, le=16, description="References of one edit.")
    json_values: int = Field(
        10_000, ge=100, le=50_000, description="Values and names of one JSON body: they cost more than their bytes."
    )
    form_parts: int = Field(200, ge=32, le=1000, description="Parts of one multipart body.")
    pixels: int = Field(
        64_000_000, ge=655_360, description="One uploaded image; the gateway checks this before it decodes the image."
    )
    bytes_in_flight: Bytes = Field(4 * 2**30, ge=2**20, description="Declared body bytes of all running requests.")
    memory_bytes: Bytes = Field(
        64 * 2**20, ge=2**20, description="For small bodies, in memory; further bodies go to disk."
    )
    header_bytes: Bytes = Field(32 * 2**10, ge=2**10)
    header_count: int = Field(100, ge=10)
    header_timeout: Seconds = Field(10, gt=0)
    body_idle: Seconds = Field(30, gt=0, description="Seconds without a byte of an unfinished body.")
    body_total: Seconds = Field(900, gt=0, description="Seconds from the end of the headers to the end of the body.")
    answer_idle: Seconds = Field(
        120, gt=0, description="Seconds that a part of an answer waits until the client reads it."
    )
    answer_total: Seconds = Field(
        3600, gt=0, description="Seconds that all parts of one answer together wait until the client reads them."
    )
    image_url_origins: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Origins outside the public internet that `image_url` may name, such as http://files.corp:8000.",
    )
    fetch_timeout: Seconds = Field(30, gt=0, description="Seconds to download one `image_url`.")
    min_free: Bytes = Field(
        2**30,
        ge=0,
        description="Free bytes that the disks of the data folder and of pictures must have for new work.",
    )
    artifact_ttl: WholeSeconds = Field(86_400, ge=60, description="Seconds until pictures and their links expire.")
    keep_alive: Seconds = Field(15, gt=0, description="Seconds between keep-alive comments of a stream.")
    requests: int = Field(4000, ge=1, description="Requests that a process serves at the same time.")
    requests_per_key: int = Field(4000, ge=1, description="The same for one key.")
    queue: int = Field(1000, ge=0, description="Requests of a process that may wait for a busy upstream.")
    queue_per_key: int = Field(200, ge=0, description="The same for one key.")
    answer_within: Seconds = Field(
        570, gt=0, description="Seconds until the gateway answers a caller without a time-out of its own."
    )


class Accounting(CataloguePart):
    """Settings of the accounting: its time zone and lease, the age and content of records, and the limit on bills."""

    time_zone: str = Field("UTC", description="The zone in which days, weeks and months begin, such as Europe/Berlin.")
    lease: Seconds = Field(
        15,
        gt=0,
        le=300,
        description="Seconds from a worker's last renewal to the adoption of its tasks. It renews every third of it.",
    )
    history_days: int = Field(90, ge=1, le=3650, description="Days until the gateway deletes the record of a request.")
    usage_days: int = Field(400, ge=1, le=3650, description="Days until the gateway deletes the daily sums.")
    keep_prompts: bool = Field(False, description="True when records hold the prompt. Otherwise nothing holds it.")
    bill_tolerance: float | None = Field(
        None,
        ge=1,
        le=10,
        description="An upstream's bill above this many times the held price is not believed: the gateway charges the "
        "price list, at most the held price, and shows the rest as disputed. `null`: 1.0 where the held price is an "
        "upper bound, else 1.5.",
    )

    @field_validator("time_zone")
    @classmethod
    def _check_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("no such time zone; write a name such as Europe/Berlin, or UTC") from error
        return value


class Join(CataloguePart):
    """The delivery of an earlier request's pictures to an equal request; the fields are in seconds."""

    orphans: Seconds = Field(
        600,
        ge=0,
        le=86_400,
        description="For this long, a new request gets the pictures of an equal one whose answer was not delivered; "
        "0: never. A retry always does.",
    )
    look_every: Seconds = Field(5, gt=0, le=60, description="Between two reads of a task that another worker runs.")


class Webhooks(CataloguePart):
    """The reports of the end of tasks to callers' addresses; all times are in seconds."""

    retries: tuple[Annotated[Seconds, Field(gt=0, le=86_400)], ...] = Field(
        (5, 30, 120, 600, 3600, 3 * 3600, 6 * 3600, 12 * 3600),
        max_length=20,
        strict=False,
        description="Pauses after the first, second, ... failed try. After the last one the delivery is given up.",
    )
    give_up: Seconds = Field(
        86_400, gt=0, le=604_800, description="The gateway makes no try this long after the task's end."
    )
    timeout: Seconds = Field(
        15, gt=0, le=60, description="For one try, from the look-up of the host to the head of the answer."
    )
    look_every: Seconds = Field(5, gt=0, le=60, description="Between two searches for deliveries of a dead worker.")
    per_key: int = Field(1000, ge=1, le=100_000, description="Deliveries that may wait at the same time for one key.")
    origins: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Origins outside the public internet that may receive webhooks, such as http://receiver.corp:8000.",
    )


class Document(CataloguePart):
    """A catalogue as it is written: all sections of the file."""

    default_model: CatalogueName = Field("gpt-image-2", description="The model of a request that names none.")
    unknown_fields: Literal["drop", "refuse"] = Field("drop", description="`refuse`: an unknown field gets a 400.")
    upstreams: dict[CatalogueName, Upstream] = Field(min_length=1)
    models: dict[CatalogueName, Model] = Field(min_length=1)
    aliases: dict[CatalogueName, Alias] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = Field(
        (), strict=False, description="Other settings for some requests; the first rule that matches applies."
    )
    limits: Limits = Field(default_factory=lambda: Limits())
    join: Join = Field(default_factory=lambda: Join())
    webhooks: Webhooks = Field(default_factory=lambda: Webhooks())
    accounting: Accounting = Field(default_factory=lambda: Accounting())
