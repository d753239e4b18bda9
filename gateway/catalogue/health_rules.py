"""What the catalogue says of an upstream's health: when it is left alone, for how long, and how it is looked after.

Part of `document`; read by `health` and `checking`. Holds numbers only.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=12, decimal_places=6, strict=False)]


class HealthRules(BaseModel):
    """Of each of an upstream's credentials; durations in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    calls: int = Field(20, ge=1, le=100, description="The breaker looks at so many of the last calls,")
    window: float = Field(600, gt=0, le=86_400, description="none of them older than this.")
    unknown: int = Field(3, ge=1, le=100, description="It opens after so many unknown outcomes among them,")
    refusals: int = Field(5, ge=1, le=100, description="or after so many that failed without having cost anything.")
    open: float = Field(30, gt=0, le=3600, description="It stays open so long, and twice as long each further time,")
    open_most: float = Field(600, gt=0, le=86_400, description="at most so long. Then it lets one call at a time pass,")
    good: int = Field(3, ge=1, le=100, description="and closes after so many good ones.")
    cool_down: float = Field(
        300, gt=0, le=86_400, description="A credential that was refused (401, 402, 403) is left alone for so long."
    )
    presumed_per_hour: Usd | None = Field(
        Decimal(10),
        description="The spend brake: dollars of unknown outcomes in an hour, above which nothing more is sent.",
    )
    check_every: float | None = Field(
        300, gt=0, le=86_400, description="Between two free calls that see whether it works and read its balance."
    )
