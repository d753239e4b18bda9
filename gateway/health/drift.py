"""Drift: counts of the cases in which an upstream was not as the catalogue says. All workers count together.

A request never waits for a count. There is at most one count for each upstream, kind and parameter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from time import time_ns
from typing import Literal, cast, get_args

import orjson
import structlog

from gateway.jobs.parameter_table import PARAMETERS, PICTURE_NAMES
from gateway.store import names
from gateway.store.client import StoreClient
from gateway.store.outbox import PAUSE_S, Outbox

DriftKind = Literal["made", "refused"]
"""`made` means that the upstream made another thing than promised; `refused` means that it refused a thing that its
abilities allow, or its own model."""

KEPT_S = 90 * 86_400

OTHER = "other"
"""A parameter that a vendor named in its own words, or did not name: the number of such names has no bound."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Drift:
    """One deviation: its count, its last time (µs since 1970), and an example if there is one."""

    upstream: str
    kind: DriftKind
    what: str
    count: int
    last: int
    example: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    upstream: str
    kind: DriftKind
    what: str

    def field(self, measure: str) -> str:
        return orjson.dumps([self.upstream, self.kind, self.what, measure]).decode()


@dataclass(frozen=True, slots=True)
class _Note:
    """`count` new deviations of one place, and an example of the last one."""

    place: _Place
    count: int
    example: str

    def merged(self, newer: _Note) -> _Note:
        return _Note(self.place, self.count + newer.count, newer.example or self.example)


def count_drifts(drifts: Iterable[Drift]) -> dict[str, int]:
    """Return the counts of one upstream's drifts by `KIND PARAMETER`, as the log of changes shows them."""
    return {f"{one.kind} {one.what}": one.count for one in drifts}


def group_drifts(drifts: Iterable[Drift]) -> dict[str, list[Drift]]:
    """Return a list of drifts for each upstream."""
    found: dict[str, list[Drift]] = {}
    for one in drifts:
        found.setdefault(one.upstream, []).append(one)
    return found


class DriftBook:
    """Counts the cases in which an upstream was not as the catalogue says, in one store.

    In tests, `now` returns the µs that replace the clock.
    """

    def __init__(
        self,
        redis: StoreClient,
        *,
        pause_s: float = PAUSE_S,
        now: Callable[[], int] = lambda: time_ns() // 1000,
    ) -> None:
        self._redis = redis
        self._now = now
        self.outbox: Outbox[_Note] = Outbox("drift", self._write, at_once=1, merge=_Note.merged, pause_s=pause_s)

    def note(self, upstream: str, kind: DriftKind, what: str | None, example: str = "") -> None:
        """Log a deviation, and count it in the background. `example` must hold no caller's words.

        `what` is a parameter; None, and a name that is no known parameter, count as `other`.
        """
        place = _Place(upstream, kind, what if what in PARAMETERS or what in PICTURE_NAMES else OTHER)
        facts = {"what": what or OTHER} | ({"example": example} if example else {})
        _log.warning("an upstream is not as the catalogue says", upstream=upstream, kind=kind, **facts)
        self.outbox.put(place.field(""), _Note(place, 1, example))

    async def read(self) -> list[Drift]:
        """Return the counts, sorted by upstream, kind and parameter. Raises StoreUnavailable."""
        stored = await cast(Awaitable[dict[str, str]], self._redis.hgetall(names.DRIFT()))
        places: dict[_Place, dict[str, str]] = {}
        for field, value in stored.items():
            upstream, kind, what, measure = orjson.loads(field)
            # A newer version may count more kinds.
            if kind in get_args(DriftKind):
                places.setdefault(_Place(upstream, kind, what), {})[measure] = value
        found = [
            Drift(
                place.upstream,
                place.kind,
                place.what,
                int(values.get("count", 0)),
                int(values.get("last", 0)),
                values.get("example", ""),
            )
            for place, values in places.items()
        ]
        return sorted(found, key=lambda one: (one.upstream, one.kind, one.what))

    async def clear(self, upstream: str) -> None:
        """Delete the stored counts of one upstream. Raises StoreUnavailable."""
        stored = await cast(Awaitable[list[str]], self._redis.hkeys(names.DRIFT()))
        fields = [field for field in stored if orjson.loads(field)[0] == upstream]
        if fields:
            await cast(Awaitable[int], self._redis.hdel(names.DRIFT(), *fields))

    async def _write(self, note: _Note) -> None:
        # A lost reply makes it count twice; these are hints for an operator, not money.
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hincrby(names.DRIFT(), note.place.field("count"), note.count)
            pipe.hset(names.DRIFT(), note.place.field("last"), str(self._now()))
            if note.example:
                pipe.hset(names.DRIFT(), note.place.field("example"), note.example)
            pipe.expire(names.DRIFT(), KEPT_S)
            await pipe.execute()
