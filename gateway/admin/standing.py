"""How limits stand and what was spent, in the form of the admin API. Used by `keys`, `teams` and `limits`."""

from __future__ import annotations

from pydantic import Field

from gateway.admin.shapes import AnswerModel, Instant, Usd
from gateway.dollars import show_usd
from gateway.money.ledger_results import Spent, Standing, Standings


class LimitStanding(AnswerModel):
    """How one limit stands. Dollars are texts, counts are numbers."""

    limit: str
    scope: str = Field(description="Whose: `key`, `team` or `everyone`.")
    ceiling: str | int
    used: str | int
    left: str | int
    resets: Instant | None = Field(description="When it allows everything again; null where no clock can tell.")


class WindowSpent(AnswerModel):
    """What was spent in one window. Held: for what is under way. Presumed: nobody knows what became of a paid call."""

    window: str = Field(description="`total`, `month`, `week` or `day`.")
    usd_posted: Usd
    usd_presumed: Usd
    usd_held: Usd
    images_posted: int
    images_presumed: int
    images_held: int


def list_standings(standings: Standings) -> list[LimitStanding]:
    """Every limit that binds."""
    return [_stand(one) for one in standings.limits]


def list_spent(standings: Standings, scope: str) -> list[WindowSpent]:
    """What one of the scopes has spent."""
    return [_spent(one) for one in standings.spent if one.scope == scope]


def _stand(one: Standing) -> LimitStanding:
    numbers = (one.ceiling, one.used, one.left)
    ceiling, used, left = (show_usd(number) if one.limit.startswith("usd_") else number for number in numbers)
    return LimitStanding(limit=one.limit, scope=one.scope, ceiling=ceiling, used=used, left=left, resets=one.resets)


def _spent(one: Spent) -> WindowSpent:
    return WindowSpent.model_validate({name: getattr(one, name) for name in WindowSpent.model_fields})
