"""The catalogue as it is written: every section and field of the file, with what a right value is.

Read by `catalog`, which finds, resolves and freezes it; the JSON schema for editors is made from it. Knows no file
and no environment.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from gateway.catalogue.upstream import CatalogueName, CataloguePart, Upstream
from gateway.jobs import sizes
from gateway.jobs.job import Operation, Quality
from gateway.jobs.sizes import Size

Strategy = Literal["cost", "priority", "weighted", "latency"]
"""By what the targets that honour a request are ordered: its price, the catalogue, chance by weight, or seconds."""

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

OtherSize = Literal["tell", "resize", "refuse"]


class Model(CataloguePart):
    """A public model name: which upstreams serve it, in which order."""

    upstreams: tuple[CatalogueName, ...] = Field(
        min_length=1,
        strict=False,
        description="The catalogue's order: what decides where the strategy finds no difference.",
    )
    strategy: Strategy = Field(
        "cost",
        description="`cost`: the cheapest for this request first. `priority`: in the order of `upstreams`. `weighted`: "
        "by chance, in proportion to the credentials' `weight`. `latency`: the fastest first, as measured.",
    )
    sizes: Literal["exact", "nearest"] = Field(
        "exact", description="`nearest`: an upstream may make another size, told in a header."
    )
    compromises: Literal["tell", "refuse"] = Field(
        "tell",
        description="`refuse`: never use a target that cannot honour a size, quality, n, mask or format that was set.",
    )
    other_size: OtherSize = Field(
        "tell",
        description="What becomes of a picture of another size than its upstream was to make: handed out and told, "
        "made the right size here, or kept back with an error. It is paid for in any case.",
    )


class Alias(CataloguePart):
    """Another name of a model, for code that was written for it."""

    model: CatalogueName
    response_format: Literal["b64_json", "url"] = "b64_json"


RequestedSize = Annotated[str, Field(min_length=1, max_length=32)]


class When(CataloguePart):
    """What a request must be for a rule to hold; all that is said must be so."""

    operation: Operation | None = Field(None, description="`generation` or `edit`.")
    models: tuple[CatalogueName, ...] | None = Field(
        None, min_length=1, strict=False, description="Public names, of models or aliases; a model's aliases count too."
    )
    sizes: tuple[RequestedSize, ...] | None = Field(
        None, min_length=1, strict=False, description="As asked: WIDTHxHEIGHT, a ratio such as 16:9, or `auto`."
    )
    min_pixels: int | None = Field(None, ge=1, description="Of the size asked for; `auto` is what would be made.")
    max_pixels: int | None = Field(None, ge=1, description="The same.")
    qualities: tuple[Quality | Literal["auto"], ...] | None = Field(
        None, min_length=1, strict=False, description="As asked; `auto` where none was."
    )
    min_n: int | None = Field(None, ge=1, le=10)
    max_n: int | None = Field(None, ge=1, le=10)
    mask: bool | None = Field(None, description="Whether there is a mask.")
    min_references: int | None = Field(None, ge=0, le=16, description="Images of an edit; a generation has none.")
    max_references: int | None = Field(None, ge=0, le=16)
    keys: tuple[str, ...] | None = Field(None, min_length=1, strict=False, description="Callers' keys, by id or name.")
    teams: tuple[str, ...] | None = Field(None, min_length=1, strict=False, description="The teams of callers' keys.")

    @field_validator("sizes")
    @classmethod
    def _are_sizes(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(_read_asked(one) for one in value)

    @model_validator(mode="after")
    def _can_be(self) -> When:
        for what in ("pixels", "n", "references"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{what} is more than max_{what}, so no request would match")
        if self.operation == "generation" and (self.mask or self.min_references):
            raise ValueError("a generation has neither a mask nor references, so no request would match")
        return self


class Defaults(CataloguePart):
    """What stands where the caller said nothing, or `auto`."""

    size: str | None = Field(None, description="WIDTHxHEIGHT, as in 1024x1024.")
    quality: Quality | None = Field(None)

    @field_validator("size")
    @classmethod
    def _is_size(cls, value: str | None) -> str | None:
        return None if value is None else str(_read_size(value))


class Rule(CataloguePart):
    """What is otherwise for some requests. The first rule that matches a request holds, alone."""

    name: str | None = Field(
        None, min_length=1, max_length=100, description="Shown where the rule is told of; its number if not said."
    )
    when: When = Field(default_factory=lambda: When(), description="Without: every request.")
    upstreams: tuple[CatalogueName, ...] | None = Field(
        None, min_length=1, strict=False, description="Only these of the model's, and in this order."
    )
    strategy: Strategy | None = Field(None, description="In place of the model's.")
    defaults: Defaults = Field(default_factory=lambda: Defaults())
    sizes: Literal["exact", "nearest"] | None = Field(None, description="In place of the model's.")
    compromises: Literal["tell", "refuse"] | None = Field(None, description="In place of the model's.")
    other_size: OtherSize | None = Field(None, description="In place of the model's.")

    @model_validator(mode="after")
    def _does_something(self) -> Rule:
        if not self.model_dump(exclude={"name", "when"}, exclude_none=True, exclude_defaults=True):
            raise ValueError("changes nothing; give upstreams, strategy, defaults, sizes, compromises or other_size")
        return self


def _read_asked(text: str) -> str:
    """A size, a ratio in lowest terms, or `auto`, as a request's own is written."""
    ratio = sizes.parse_ratio(text)
    if ratio is not None:
        return sizes.make_shape(*ratio, "1K").ratio
    return text if text == "auto" else str(_read_size(text))


def _read_size(text: str) -> Size:
    size = sizes.parse_size(text)
    if size is None:
        raise ValueError(f"{text!r} is no size; right is WIDTHxHEIGHT, as in 1024x1024")
    if fault := sizes.find_fault(size):
        raise ValueError(f"{text} is not possible: {fault}")
    return size


class Limits(CataloguePart):
    """Bounds on what callers may send; bytes, seconds and pixels."""

    body_bytes: int = Field(256 * 2**20, ge=2**20, description="One request's body.")
    image_bytes: int = Field(50 * 2**20, ge=2**10, description="One image.")
    images: int = Field(16, ge=1, le=16, description="References of one edit.")
    pixels: int = Field(64_000_000, ge=655_360, description="One uploaded image, checked before it is decoded.")
    bytes_in_flight: int = Field(4 * 2**30, ge=2**20, description="Declared bodies of all running requests.")
    memory_bytes: int = Field(
        64 * 2**20, ge=2**20, description="Small bodies kept in memory; above it they go to disk."
    )
    header_bytes: int = Field(32 * 2**10, ge=2**10)
    header_count: int = Field(100, ge=10)
    header_timeout: float = Field(10, gt=0)
    body_idle: float = Field(30, gt=0, description="Seconds without a byte of an unfinished body.")
    answer_idle: float = Field(120, gt=0, description="Seconds that a part of an answer waits for its reader.")
    image_url_origins: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Origins beside the public internet that `image_url` may name, as in http://files.corp:8000.",
    )
    fetch_timeout: float = Field(30, gt=0, description="Seconds to download one `image_url`.")
    min_free: int = Field(
        2**30, ge=0, description="Bytes that the disks of the data folder and of pictures must have free for new work."
    )
    artifact_ttl: int = Field(86_400, ge=60, description="Seconds that pictures and their links live.")
    keep_alive: float = Field(15, gt=0, description="Seconds between keep-alive comments of a stream.")
    requests: int = Field(4000, ge=1, description="Requests that a process serves at a time.")
    requests_per_key: int = Field(4000, ge=1, description="The same of one key.")
    queue: int = Field(1000, ge=0, description="Requests of a process that may wait for a busy upstream.")
    queue_per_key: int = Field(200, ge=0, description="The same of one key.")
    answer_within: float = Field(570, gt=0, description="Seconds until a caller who named no time-out is answered.")


class Accounting(CataloguePart):
    """How money is counted, and how long what was counted is kept."""

    time_zone: str = Field("UTC", description="Where days, weeks and months begin, as in Europe/Berlin.")
    lease: float = Field(
        15, gt=0, le=300, description="Seconds that a worker owns its tasks without a sign of life; it gives three."
    )
    history_days: int = Field(90, ge=1, le=3650, description="Days that the record of a request is kept.")
    usage_days: int = Field(400, ge=1, le=3650, description="Days that the daily sums are kept.")
    keep_prompts: bool = Field(False, description="Whether records hold the prompt; otherwise nothing does.")

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("no such time zone; right is a name like Europe/Berlin, or UTC") from error
        return value


class Join(CataloguePart):
    """How a repeated request finds the pictures of the first; seconds."""

    orphans: float = Field(
        600,
        ge=0,
        le=86_400,
        description="For how long a request that is no retry still finds the pictures of the same request that was "
        "left without its answer; 0: never. A retry always does.",
    )
    look_every: float = Field(5, gt=0, le=60, description="Between two looks at a task that another worker runs.")


class Webhooks(CataloguePart):
    """How callers' addresses are told of the end of tasks; seconds."""

    retries: tuple[Annotated[float, Field(gt=0, le=86_400)], ...] = Field(
        (5, 30, 120, 600, 3600, 3 * 3600, 6 * 3600, 12 * 3600),
        max_length=20,
        strict=False,
        description="Pauses after the first, second, ... try that failed; after the last one a delivery is given up.",
    )
    give_up: float = Field(86_400, gt=0, le=604_800, description="No try is made so long after the task's end.")
    timeout: float = Field(15, gt=0, le=60, description="One try, from the look-up of the host to the answer's head.")
    look_every: float = Field(5, gt=0, le=60, description="Between two looks for what another worker left.")
    per_key: int = Field(1000, ge=1, le=100_000, description="Deliveries that may wait for one key.")
    origins: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Origins beside the public internet that may be told, as in http://receiver.corp:8000.",
    )


class Document(CataloguePart):
    """A catalogue as it is written."""

    default_model: CatalogueName = Field("gpt-image-2", description="Used where a request names no model.")
    unknown_fields: Literal["drop", "refuse"] = Field("drop", description="`refuse`: a field nobody knows gets a 400.")
    upstreams: dict[CatalogueName, Upstream] = Field(min_length=1)
    models: dict[CatalogueName, Model] = Field(min_length=1)
    aliases: dict[CatalogueName, Alias] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = Field(
        (), strict=False, description="What is otherwise for some requests; the first that matches holds."
    )
    limits: Limits = Field(default_factory=lambda: Limits())
    join: Join = Field(default_factory=lambda: Join())
    webhooks: Webhooks = Field(default_factory=lambda: Webhooks())
    accounting: Accounting = Field(default_factory=lambda: Accounting())
