"""What happened so far to one task's slots, and what its caller hears of those that stayed empty.

Kept by `dispatch` alone. Decides nothing but the words.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from decimal import Decimal

from gateway import errors
from gateway.condition import Bar
from gateway.errors import PublicError
from gateway.health import Permit
from gateway.job import Call, Usage
from gateway.receiving import Image
from gateway.routing import Choice
from gateway.store.records import CallFact
from gateway.verdict import Executed, Verdict

_ONCE = frozenset({"unsent", "task_failed"})
"""Failures after which a slot goes to the next target once only: a second time it is likely the request's fault."""

MAX_CALLS = 3
"""Paid calls for one slot over all targets."""


@dataclass(slots=True)
class Tally:
    """What happened so far to one task's slots."""

    open: list[int]
    sent: dict[int, int] = field(default_factory=dict)
    images: dict[int, Image] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    usages: list[Usage | None] = field(default_factory=list)
    dropped: dict[str, None] = field(default_factory=dict)
    facts: list[CallFact] = field(default_factory=list)
    bars: dict[str, Bar] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    moved: set[tuple[int, str]] = field(default_factory=set)
    calls: int = 0
    is_over: bool = False

    def move_on(self, slots: list[int], verdict: Verdict) -> list[int]:
        """Those of the slots that may not go to another target: it failed them, or did so once before in this way."""
        if not verdict.elsewhere and not verdict.again:
            return slots
        if verdict.kind not in _ONCE:
            return []
        ended = [slot for slot in slots if (slot, verdict.kind) in self.moved]
        self.moved.update((slot, verdict.kind) for slot in slots)
        return ended

    def may_send(self) -> list[int]:
        """The slots that are still to be filled and may be tried once more."""
        return [] if self.is_over else [slot for slot in self.open if self.sent.get(slot, 0) < MAX_CALLS]


@dataclass(slots=True)
class UnderWay:
    """One paid call under way: what it brought, and what went wrong."""

    choice: Choice
    call: Call
    permit: Permit
    began: float = field(default_factory=time.monotonic)
    images: list[Image] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    usage: Usage | None = None
    credits: Decimal | None = None

    @property
    def is_unexecuted(self) -> bool:
        return not self.images and all(one.executed is Executed.NO for one in self.verdicts)


def kept_away(error: PublicError) -> Verdict:
    """That nothing was sent to a target, and why."""
    return Verdict("kept_away", Executed.NO, again=False, elsewhere=True, error=error)


def choose_error(verdicts: list[Verdict]) -> PublicError:
    """What the caller hears when slots stayed empty: a refusal first, then what may have cost money, then the last."""
    for kind in ("policy", "refused"):
        for verdict in verdicts:
            if verdict.kind == kind:
                return verdict.error
    for verdict in verdicts:
        if verdict.executed is not Executed.NO:
            return verdict.error
    if not verdicts:
        return errors.UpstreamUnavailable("No upstream took the request; nothing was billed.", retry_after=5)
    last = verdicts[-1]
    waits = [one.error.retry_after for one in verdicts if one.kind == last.kind and one.error.retry_after is not None]
    if waits:
        last.error.retry_after = min(waits)
    return last.error
