"""What happened so far to one task's slots, and what its caller hears of those that stayed empty.

Kept by `dispatch` alone. Decides nothing but the words.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway import errors
from gateway.errors import PublicError
from gateway.health.condition import Block
from gateway.health.health import Permit
from gateway.history.record import CallFact, PassedBy
from gateway.jobs.job import Call, TokenUsage
from gateway.jobs.sizes import Size
from gateway.routing.plan import Choice
from gateway.state.call_store import CallNote, Receipt
from gateway.state.task_store import TaskImage
from gateway.upstreams.verdict import Executed, Verdict

_ONCE = frozenset({"unsent", "task_failed"})
"""Failures after which a slot goes to the next target once only: a second time it is likely the request's fault."""

MAX_CALLS = 3
"""Paid calls for one slot over all targets."""


@dataclass(slots=True)
class SlotProgress:
    """What happened so far to one task's slots."""

    open: list[int]
    choices: tuple[Choice, ...] = ()
    sent: dict[int, int] = field(default_factory=dict)
    images: dict[int, TaskImage] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    usages: list[TokenUsage | None] = field(default_factory=list)
    dropped: dict[str, None] = field(default_factory=dict)
    facts: list[CallFact] = field(default_factory=list)
    bars: dict[str, Block] = field(default_factory=dict)
    passed: dict[str, str] = field(default_factory=dict)
    # Frozen, so that the empty ones, which most stay, are one object for all tasks.
    asked: frozenset[tuple[int, str]] = frozenset()
    again: frozenset[tuple[int, str]] = frozenset()
    unreachable: frozenset[tuple[int, str]] = frozenset()
    moved: frozenset[tuple[int, str]] = frozenset()
    calls: int = 0
    is_over: bool = False

    def move_on(self, slots: list[int], verdict: Verdict) -> list[int]:
        """Those of the slots that may not go to another target: it failed them, or did so once before in this way."""
        if not verdict.elsewhere and not verdict.again:
            return slots
        if verdict.kind not in _ONCE:
            return []
        ended = [slot for slot in slots if (slot, verdict.kind) in self.moved]
        self.moved |= {(slot, verdict.kind) for slot in slots}
        return ended

    def may_send(self, slots: Iterable[int]) -> list[int]:
        """Those of the slots that are still to be filled and may be tried once more."""
        return [] if self.is_over else [one for one in slots if one in self.open and self.sent.get(one, 0) < MAX_CALLS]

    def ask(self, slots: Iterable[int], label: str) -> None:
        """Remember that a target was asked for these slots."""
        self.asked |= {(slot, label) for slot in slots}

    def pass_by(self, label: str, why: str) -> None:
        """Remember why a target was not asked when its turn came."""
        self.passed[label] = why

    def list_passed(self) -> tuple[PassedBy, ...]:
        """Who had a turn and was never asked, with the last reason."""
        asked = {label for _, label in self.asked}
        return tuple(PassedBy(target=label, reason=why) for label, why in self.passed.items() if label not in asked)

    def was_asked(self, slots: Iterable[int], label: str) -> bool:
        """Whether to send these there would be to send something again."""
        return any((slot, label) in self.asked for slot in slots)

    def passing(self, slots: Sequence[int]) -> list[Choice]:
        """The targets that had no place, or asked to be left alone, but not for long; none that failed these slots."""
        found: list[Choice] = []
        for choice in self.choices:
            label = choice.target.label
            bar = self.bars.get(label)
            failed = any((slot, label) in self.asked and (slot, label) not in self.again for slot in slots)
            if bar is not None and bar.is_passing and not failed:
                found.append(choice)
        return found

    def note(self, slots: Iterable[int], label: str, verdict: Verdict) -> None:
        """Remember by which way, if any, these slots may come to this target again."""
        places = {(slot, label) for slot in slots}
        self.again -= places
        if verdict.again and verdict.cool:
            self.bars[label] = Block("rate_limited", verdict.cool)
            self.again |= places
        if verdict.kind == "unreachable":
            self.unreachable |= places

    def give_up(self, slots: Iterable[int], label: str) -> None:
        """These slots do not come to this target again."""
        self.again -= {(slot, label) for slot in slots}


@dataclass(slots=True)
class UnderWay:
    """One paid call under way: what it brought, and what went wrong."""

    choice: Choice
    call: Call
    permit: Permit
    note: CallNote
    began: float = field(default_factory=time.monotonic)
    receipt: Receipt | None = None
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def is_unexecuted(self) -> bool:
        return self.receipt is None and all(one.executed is Executed.NO for one in self.verdicts)


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


def describe_sizes(choice: Choice, made: list[Size]) -> dict[str, Any]:
    """What the record of a call tells of sizes: nothing, unless one is not as it was to be."""
    promised = choice.fit.made
    if promised is None or all(one == promised for one in made):
        return {}
    return {"promised": str(promised), "made": tuple(map(str, made))}
