"""The catalogue's entry of an upstream as it is written: credentials, abilities, time limits, health rules.

It knows no file and no environment. `document` holds the other sections of the file.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from gateway.catalogue.pricing import Prices
from gateway.catalogue.vendors import VENDORS, name_takers
from gateway.net.outside_text import read_url
from gateway.process.units import read_bytes, read_seconds

CatalogueName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$")]

_SIZE = re.compile(r"[1-9][0-9]{2,3}x[1-9][0-9]{2,3}")
_SIZE_NAME = re.compile(rf"auto|{_SIZE.pattern}")
SizeName = Annotated[str, Field(pattern=f"^({_SIZE_NAME.pattern})$")]

Bytes = Annotated[int, BeforeValidator(read_bytes, json_schema_input_type=int | str)]
"""Bytes, also with a unit: `256MB` (10⁶), `4GiB` (2³⁰)."""

Seconds = Annotated[float, BeforeValidator(read_seconds, json_schema_input_type=float | str)]
"""Seconds, also with a unit: `90s`, `5m`, `2h`, `1d`."""

WholeSeconds = Annotated[int, BeforeValidator(read_seconds, json_schema_input_type=int | str)]

Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=12, decimal_places=6, strict=False)]


def _check_kind(kind: str) -> str:
    if kind not in VENDORS:
        raise ValueError(f"must be one of {', '.join(VENDORS)}")
    return kind


Kind = Annotated[str, AfterValidator(_check_kind), WithJsonSchema({"enum": list(VENDORS), "type": "string"})]


class CataloguePart(BaseModel):
    """The base of the catalogue's sections: unknown fields are mistakes, and nothing changes later.

    The whole document has the only validator that a load uses, so no section builds one of its own at its import.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Capabilities(CataloguePart):
    """Corrections of the documented abilities, where an operator knows better than the vendor's documentation."""

    max_n: int | None = Field(None, ge=1, le=10, description="Images that one call may ask for.")
    masks: bool | None = Field(None, description="True when edits may have a mask.")
    edit_quality: bool | None = Field(None, description="True when edits may have `quality`.")
    max_references: int | None = Field(None, ge=1, le=16, description="Reference images that an edit may have.")
    formats: tuple[Literal["png", "jpeg", "webp"], ...] | None = Field(
        None, min_length=1, strict=False, description="Formats that it makes; the gateway converts to the others."
    )
    sizes: Literal["exact"] | tuple[SizeName, ...] | None = Field(
        None,
        description="`exact`: any legal size. A list: the sizes that it makes, with `auto` where it may choose one.",
    )
    transparent: bool | None = Field(
        None, description=f"True when it makes transparent backgrounds; {name_takers('transparent')} only."
    )
    pass_user: bool | None = Field(
        None,
        description="True when it may receive `user` or `safety_identifier`, which are personal data; "
        f"{name_takers('pass_user')} only.",
    )

    @field_validator("sizes", mode="before")
    @classmethod
    def _check_sizes(cls, value: object) -> object:
        if value is None or value == "exact":
            return value
        names = [str(one) for one in value] if isinstance(value, list) else []
        if not any(_SIZE.fullmatch(name) for name in names) or not all(map(_SIZE_NAME.fullmatch, names)):
            raise ValueError("must be `exact`, or a list such as [auto, 1024x1024], with at least one size")
        return tuple(names)


_REFERENCE = r"^(env:[A-Za-z_]\w*|file:/.+)$"


class Credential(CataloguePart):
    """One key at an upstream, with its abilities, prices and limits."""

    name: CatalogueName = Field("main", description="The operator sees this name in place of the key.")
    key: str = Field(pattern=_REFERENCE, description="`env:NAME` or `file:/path`; never the key itself.")
    group: str = Field(
        "default", description="The vendor's group of this key, where the key's abilities depend on its group."
    )
    capabilities: Capabilities = Field(default_factory=lambda: Capabilities())
    prices: Prices | None = Field(None, description="This key's own prices, in place of its upstream's.")
    weight: int = Field(1, ge=1, le=1000, description="Its share of the work among the upstream's credentials.")
    max_concurrent: int | None = Field(None, ge=1, le=10_000, description="Calls at a time; without, any number.")
    requests_per_minute: int | None = Field(
        None, ge=1, le=100_000, description="Calls in a minute, spread or all at once."
    )
    min_balance: int | None = Field(
        None,
        ge=0,
        description="Credits, where the vendor reports them; below this balance the gateway does not use the key.",
    )


class Timeouts(CataloguePart):
    """Time limits of requests to an upstream, in seconds."""

    connect: Seconds = Field(10, gt=0, le=60)
    call: Seconds = Field(
        600,
        gt=0,
        le=3600,
        description="From the last byte of the request to the head of the answer, and between bytes of the answer.",
    )
    call_total: Seconds = Field(
        3600, gt=0, le=86_400, description="One paid call, from its connecting to the last byte of its answer."
    )
    task: Seconds = Field(1800, gt=0, le=86_400, description="From a task's ticket to its end.")
    poll: Seconds = Field(
        20, gt=0, le=120, description="One status query or upload: to the head of its answer, and between bytes of it."
    )
    poll_total: Seconds = Field(
        300, gt=0, le=3600, description="One status query or upload, to the last byte of its answer."
    )
    poll_every: Seconds = Field(5, gt=0, le=60, description="The longest pause between two status queries.")
    callback: Seconds = Field(
        1800,
        gt=0,
        le=86_400,
        description="Wait for a callback that names the ticket of a lost answer, where callbacks are on.",
    )
    collect: Seconds = Field(60, gt=0, le=600, description="To download one picture from its link, with all tries.")

    @property
    def answer(self) -> float:
        """Seconds from the start of a paid POST to the latest head of its answer, without the sending of its body."""
        return self.connect + self.call


class HealthRules(CataloguePart):
    """The circuit breaker, the spend limit and the health checks of each of an upstream's credentials; seconds."""

    calls: int = Field(20, ge=1, le=100, description="The circuit breaker looks at this many of the last calls,")
    window: Seconds = Field(600, gt=0, le=86_400, description="none of them older than this.")
    unknown: int = Field(3, ge=1, le=100, description="It opens after this many unknown outcomes among them,")
    refusals: int = Field(5, ge=1, le=100, description="or after this many failures that cost nothing.")
    open: Seconds = Field(30, gt=0, le=3600, description="It stays open this long, and twice as long each next time,")
    open_most: Seconds = Field(600, gt=0, le=86_400, description="at most this long. Then it is half-open: one call,")
    good: int = Field(3, ge=1, le=100, description="one at a time, and closed after this many good ones.")
    cool_down: Seconds = Field(
        300, gt=0, le=86_400, description="A rejected credential (401, 402, 403) is not used for this long."
    )
    presumed_per_hour: Usd | None = Field(
        Decimal(10),
        description="The spend limit: dollars of unknown outcomes in an hour, above which the gateway sends nothing.",
    )
    check_every: Seconds | None = Field(
        300, gt=0, le=86_400, description="Between two free calls that test the credential and read its balance."
    )


class Upstream(CataloguePart):
    """A vendor's endpoint, with its credentials, prices and rules."""

    kind: Kind = Field(description="The dialect that it speaks.")
    base_url: str = Field(description="The part of the URL before `/v1/...`.")
    model: CatalogueName = Field(description="The upstream's own model id.")
    credentials: tuple[Credential, ...] = Field(min_length=1, strict=False)
    prices: Prices | None = Field(
        None, description="Its prices; without them, it serves only keys that have no limit in dollars."
    )
    error_is_unbilled: bool = Field(
        True, description="True when its own JSON 500, 502 or 503 proves that it billed nothing."
    )
    refusal_is_unbilled: bool = Field(True, description="True when it does not bill a refusal by its safety system.")
    failed_task_is_unbilled: bool = Field(
        True, description="True when it does not bill a task that failed; what the task's answer says comes first."
    )
    unknown_outcome: Literal["presume", "release", "hold"] = Field(
        "presume",
        description="The price of a call with an unknown outcome is charged and flagged (`presume`), given back "
        "(`release`), or held until an operator decides (`hold`).",
    )
    timeouts: Timeouts = Field(default_factory=lambda: Timeouts())
    health: HealthRules = Field(default_factory=lambda: HealthRules())

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        parts = read_url(value)
        is_web = parts is not None and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if parts is None or not is_web or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("must be an http(s) URL without user, query or fragment, such as https://api.example.com")
        if parts.path.rstrip("/").endswith("/v1"):
            raise ValueError(f"leave out `/v1`, the gateway adds it: {value.rstrip('/').removesuffix('/v1')}")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_capabilities(self) -> Upstream:
        for credential in self.credentials:
            for name in ("transparent", "pass_user"):
                if getattr(credential.capabilities, name) and name not in VENDORS[self.kind].options:
                    raise ValueError(f"`{name}` is for {name_takers(name)} only, not for `{self.kind}`")
        return self
