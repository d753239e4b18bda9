"""The daily sums, added up by day, key, team, model or upstream. This module never changes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Any, Literal, cast, get_args

from gateway.catalogue.document import Accounting
from gateway.history.history import DAY, MEASURES, read_sum_field
from gateway.history.record import Sums, UsageLine
from gateway.store import names
from gateway.store.client import StoreClient
from gateway.store.windows import Calendar

Dimension = Literal["day", "key", "team", "model", "upstream"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)


@dataclass(frozen=True, slots=True)
class Row:
    """One group: a value for each dimension, in the order of the report's `by`, and its sums."""

    group: tuple[str, ...]
    sums: Sums


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Rows, sorted by their groups, and their total."""

    by: tuple[Dimension, ...]
    rows: tuple[Row, ...]
    total: Sums


@dataclass(frozen=True, slots=True)
class Only:
    """The lines to add up. None allows every value; "" stands for no team, no known model or no upstream."""

    key: str | None = None
    team: str | None = None
    model: str | None = None
    upstream: str | None = None

    def fits(self, line: UsageLine) -> bool:
        asked = (
            (self.key, line.key),
            (self.team, line.team),
            (self.model, line.model),
            (self.upstream, line.upstream),
        )
        return all(want is None or want == found for want, found in asked)


class UsageReader:
    """The sums in one store. In tests, `now` returns the µs that replace the clock."""

    def __init__(
        self, redis: StoreClient, accounting: Accounting, *, now: Callable[[], int] = lambda: time_ns() // 1000
    ) -> None:
        self._redis = redis
        self._accounting = accounting
        self._calendar = Calendar(accounting.time_zone)
        self._now = now

    async def sum(self, since: int, until: int, by: Sequence[Dimension] = (), only: Only | None = None) -> UsageReport:
        """Add up the whole days that the span from `since` to just before `until` (µs) touches, grouped by dimensions.

        Days older than `accounting.usage_days` have no sums. Raises StoreUnavailable.
        """
        only = only or Only()
        groups: dict[tuple[str, ...], Sums] = defaultdict(Sums)
        earliest = self._now() - (self._accounting.usage_days + 1) * DAY
        for day in self._calendar.name_days(max(since, earliest), min(until, self._now() + DAY)):
            stored = await cast(Awaitable[dict[str, Any]], self._redis.hgetall(names.USAGE(day.name)))
            for field, value in stored.items():
                line, measure = read_sum_field(field)
                # A newer version may sum what this one does not know.
                if only.fits(line) and measure in MEASURES:
                    groups[_group(by, day.name, line)] += Sums(**{measure: int(value)})
        rows = tuple(Row(group, groups[group]) for group in sorted(groups))
        return UsageReport(tuple(by), rows, sum((row.sums for row in rows), Sums()))


def _group(by: Sequence[Dimension], day: str, line: UsageLine) -> tuple[str, ...]:
    return tuple(day if one == "day" else getattr(line, one) for one in by)
