"""The state of a task's slots while calls run, and the outcome of the task: its images, its end, its request's record.

No store, no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway import errors
from gateway.errors import PublicError
from gateway.health.condition import Block
from gateway.history.record import CallFact, PassedBy, Record
from gateway.jobs.job import Quality, Size, TokenUsage
from gateway.routing.plan import Choice
from gateway.state.task_store import End, TaskImage
from gateway.upstreams.verdict import Executed, Verdict

_ONCE = frozenset({"unsent", "task_failed"})
"""Kinds of failure after which a slot goes to another target once: a second one is likely the request's own fault."""

MAX_CALLS = 3
"""Most paid calls for one slot, over all targets."""


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The end of one paid call. `charge` is the µ$ that its task counts, None where no price is known.

    `quality` is the one that was sent. `may_be_billed` means that the upstream may have executed the call,
    `is_answered` that its pictures came, so that `usage` and the `dropped` parameters count.
    """

    fact: CallFact
    charge: int | None = 0
    quality: Quality | None = None
    may_be_billed: bool = False
    is_answered: bool = False
    usage: TokenUsage | None = None
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The images of a task by slot, its calls in the order of their ends, and the error if a slot stayed empty.

    `passed_by` lists the targets that got no call. `spent` is µ$, None where a price is not known. `is_guess` means
    that the outcome of a call is not known, `is_unstarted` that its worker died before an upstream accepted a call.
    """

    images: tuple[TaskImage, ...] = ()
    calls: tuple[CallEnd, ...] = ()
    error: PublicError | None = None
    passed_by: tuple[PassedBy, ...] = ()
    spent: int | None = 0
    is_guess: bool = False
    is_unstarted: bool = False

    def to_end(self, completed: int) -> End:
        """Return the end for the task's record; `completed` is unix seconds."""
        usage = _add_usages([call.usage for call in self.calls if call.is_answered])
        dropped = (name for each in (*self.calls, *self.images) for name in each.dropped)
        return End(
            status="succeeded" if self.images else "failed",
            completed=completed,
            calls=sum(call.may_be_billed for call in self.calls),
            upstreams=tuple(dict.fromkeys(image.upstream for image in self.images)),
            dropped=tuple(dict.fromkeys(dropped)),
            usage=None if usage is None else asdict(usage),
            spent=self.spent,
            error=self.error.to_facts() if self.error else None,
            is_unstarted=self.is_unstarted,
            is_guess=self.is_guess,
        )

    def describe(self, record: Record, answer: PublicError | None = None) -> Record:
        """Return the request's record, completed. `answer` is the error, if any, that its caller got before the end."""
        return record.model_copy(update=self.to_facts(record.passed_by, answer))

    def to_facts(self, passed_by: tuple[PassedBy, ...], answer: PublicError | None = None) -> dict[str, Any]:
        """Return the fields by which the outcome completes a record. `passed_by` has the record's targets so far."""
        answer = answer or (None if self.images else self.error)
        error = answer or self.error
        return {
            "calls": tuple([call.fact for call in self.calls]),
            "sizes_made": tuple([image.size for image in self.images]),
            "quality_sent": self.calls[-1].quality if self.calls else None,
            "n_delivered": len(self.images),
            "status": answer.status if answer else 200,
            "error": error.code if error else None,
            "passed_by": (*passed_by, *self.passed_by),
        }


@dataclass(slots=True)
class SlotProgress:
    """The slots of one task while its calls run: the open ones, the images, the calls and the failures.

    `sent` counts the calls of each slot. By target, `blocks` has the block that keeps calls away now, and `passed` the
    reason why the target got no call in its turn. `asked`, `again` and `unreachable` hold a slot and a target that was
    asked for it, may be asked for it once more, or could not be reached. `moved` holds a slot and a kind of failure
    after which it left a target.
    """

    open: list[int]
    choices: tuple[Choice, ...] = ()
    sent: dict[int, int] = field(default_factory=dict)
    images: dict[int, TaskImage] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    calls: list[CallEnd] = field(default_factory=list)
    blocks: dict[str, Block] = field(default_factory=dict)
    passed: dict[str, str] = field(default_factory=dict)
    # Frozen, so that the empty ones, which most stay, are one object for all tasks.
    asked: frozenset[tuple[int, str]] = frozenset()
    again: frozenset[tuple[int, str]] = frozenset()
    unreachable: frozenset[tuple[int, str]] = frozenset()
    moved: frozenset[tuple[int, str]] = frozenset()
    is_over: bool = False

    def may_send(self, slots: Iterable[int]) -> list[int]:
        """Return those of the slots that are open and may be sent once more; none once the task is over."""
        return [] if self.is_over else [one for one in slots if one in self.open and self.sent.get(one, 0) < MAX_CALLS]

    def note_asked(self, slots: Iterable[int], label: str) -> None:
        """Record in `asked` that a target was asked for these slots."""
        self.asked |= {(slot, label) for slot in slots}

    def was_asked(self, slots: Iterable[int], label: str) -> bool:
        """True when this target was asked for one of the slots before."""
        return any((slot, label) in self.asked for slot in slots)

    def was_unreachable(self, slots: Iterable[int], label: str) -> bool:
        """True when one of these slots may be sent, and a call for it could not reach this target."""
        return any((slot, label) in self.unreachable for slot in self.may_send(slots))

    def pass_by(self, label: str, reason: str) -> None:
        """Record in `passed` the reason why a target got no call in its turn. A later reason replaces it."""
        self.passed[label] = reason

    def list_passed(self) -> tuple[PassedBy, ...]:
        """Return the targets that had a turn and got no call, with the last reason."""
        asked = {label for _, label in self.asked}
        return tuple(
            PassedBy(target=label, reason=reason) for label, reason in self.passed.items() if label not in asked
        )

    def find_waitable(self, slots: Sequence[int]) -> list[Choice]:
        """Return the targets with a short block, except those that failed a slot and may not get it again."""
        found: list[Choice] = []
        for choice in self.choices:
            label = choice.target.label
            block = self.blocks.get(label)
            failed = any((slot, label) in self.asked and (slot, label) not in self.again for slot in slots)
            if block is not None and block.is_passing and not failed:
                found.append(choice)
        return found

    def note_failure(self, slots: Sequence[int], label: str, verdict: Verdict) -> None:
        """Add the verdict on a failure of these slots, and close those that may not be sent to any target again.

        Slots that may come back to this target go into `again`, and the target into `blocks`. A refusal by a safety
        system ends the task.
        """
        self.verdicts.append(verdict)
        places = {(slot, label) for slot in slots}
        self.again -= places
        if verdict.again and verdict.cool:
            self.blocks[label] = Block("rate_limited", verdict.cool)
            self.again |= places
        if verdict.kind == "unreachable":
            self.unreachable |= places
        ended = self._find_ended(slots, verdict)
        self.open = [slot for slot in self.open if slot not in ended]
        # One refusal by a safety system is about the prompt, and every further call might be billed.
        if verdict.kind == "policy":
            self.is_over = True

    def give_up(self, slots: Iterable[int], label: str) -> None:
        """Remove these slots from `again`, so that they do not come back to this target."""
        self.again -= {(slot, label) for slot in slots}

    def _find_ended(self, slots: Sequence[int], verdict: Verdict) -> Sequence[int]:
        """Return those of the slots that may not be sent to any target again, and update `moved`."""
        if not verdict.elsewhere and not verdict.again:
            return slots
        if verdict.kind not in _ONCE:
            return ()
        ended = [slot for slot in slots if (slot, verdict.kind) in self.moved]
        self.moved |= {(slot, verdict.kind) for slot in slots}
        return ended


def not_sent(error: PublicError) -> Verdict:
    """Return the verdict on a target that got no call: another target may get it. `error` is the reason."""
    return Verdict("kept_away", Executed.NO, again=False, elsewhere=True, error=error)


def conclude(
    images: Sequence[TaskImage],
    n: int,
    calls: Sequence[CallEnd],
    verdicts: Sequence[Verdict],
    passed_by: tuple[PassedBy, ...] = (),
) -> Outcome:
    """Return the outcome of a task of `n` images. `verdicts` are the failures, in the order in which they happened."""
    charges = [call.charge for call in calls]
    known = [charge for charge in charges if charge is not None]
    return Outcome(
        images=tuple(sorted(images, key=lambda image: image.slot)),
        calls=tuple(calls),
        error=None if len(images) >= n else choose_error(verdicts),
        passed_by=passed_by,
        spent=sum(known) if len(known) == len(charges) else None,
        is_guess=any(call.fact.state in ("held", "presumed") for call in calls),
    )


def choose_error(verdicts: Sequence[Verdict]) -> PublicError:
    """Return the error for empty slots: of a refusal, else of a failure that may be billed, else of the last one.

    Without failures it is UpstreamUnavailable. If the last failure decides, its error gets the shortest `retry_after`
    of all failures of its kind.
    """
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


def describe_sizes(promised: Size | None, made: Sequence[Size]) -> dict[str, Any]:
    """Return the fields `promised` and `made` of a call's fact; none unless a picture has another size."""
    if promised is None or all(one == promised for one in made):
        return {}
    return {"promised": str(promised), "made": tuple(map(str, made))}


def _add_usages(usages: Sequence[TokenUsage | None]) -> TokenUsage | None:
    """Return the sum of the tokens; None if there is no call or one upstream counted none."""
    counted = [usage for usage in usages if usage is not None]
    if not counted or len(counted) < len(usages):
        return None
    return sum(counted[1:], counted[0])
