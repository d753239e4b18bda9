"""What is remembered of one request: who asked, what was sent and made, what it cost; and how that moves a day's sums.

Made by `recording`, kept by `store.history`. Never holds a picture or a key, and a prompt only where the operator
wants it. Pure: data and what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict

from gateway import errors
from gateway.ids import time_of
from gateway.money.ledger_results import Hold, LedgerAnswer

PREFIX = "rec"
CREDIT = "(credit)"
"""Stands as the upstream of an operator's corrections in the sums; no upstream can be named so."""

SettledState = Literal["held", "void", "presumed", "posted"]
_RISES: tuple[SettledState, ...] = ("held", "void", "presumed", "posted")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Fact(BaseModel):
    # A replica of an older version must read a record that a newer one wrote.
    model_config = ConfigDict(frozen=True, extra="ignore")


class CallFact(_Fact):
    """What became of one paid call: `outcome` is `delivered` or the verdict on its failure, `images` what came of `n`.

    `usd` is µ$, None where its price is not known. `state` is the ledger's: a presumed or posted call is charged.
    `promised` and `made` are sizes, told where a picture came in another size than its upstream was to make.
    """

    id: str
    upstream: str
    target: str
    outcome: str
    seconds: float
    n: int
    images: int = 0
    usd: int | None = 0
    state: SettledState = "posted"
    promised: str | None = None
    made: tuple[str, ...] = ()

    def raised_by(self, news: CallFact) -> CallFact:
        """The call after news of it, which count only where its state rises: the first bill stands."""
        if _RISES.index(news.state) <= _RISES.index(self.state):
            return self
        return self.model_copy(update={"state": news.state, "usd": news.usd, "images": news.images})


class PassedBy(_Fact):
    """A target of the model that was not asked, and why: the plan had rejected it, or it had no place just then."""

    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What the sums of a day are kept by. Empty text: no team, no such model, nothing was sent anywhere."""

    key: str
    team: str
    model: str
    upstream: str


@dataclass(frozen=True, slots=True)
class Sums:
    """Requests, images that came, requests that ended in an error, and µ$."""

    requests: int = 0
    images: int = 0
    errors: int = 0
    usd: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.requests + other.requests,
            self.images + other.images,
            self.errors + other.errors,
            self.usd + other.usd,
        )

    def __sub__(self, other: Sums) -> Sums:
        return Sums(
            self.requests - other.requests,
            self.images - other.images,
            self.errors - other.errors,
            self.usd - other.usd,
        )


class Record(_Fact):
    """One request. Prices are µ$, times seconds; None is what was not said or is not known.

    `status` is what the caller was answered, or would have been had it stayed. `quality_asked` and `size_asked` None
    mean `auto`. `strategy` is what ordered the targets, and None where the request came to no plan.
    """

    id: str
    request: str
    """Empty when its worker died: then only what the ledger knows is told."""
    key: str
    key_name: str
    task: str | None = None
    is_joined: bool = False
    """Another request began the task, whose record tells what it made and cost."""
    team: str | None = None
    end_user: str | None = None
    operation: str = "generation"
    model: str = ""
    is_model_known: bool = True
    """A name that no catalogue has stands in the record, but not in the sums: anybody can think of thousands."""
    calls: tuple[CallFact, ...] = ()
    size_asked: str | None = None
    sizes_made: tuple[str, ...] = ()
    quality_asked: str | None = None
    quality_sent: str | None = None
    n_asked: int = 0
    n_delivered: int = 0
    price_held: int | None = None
    status: int = 200
    error: str | None = None
    repeats: int = 1
    """How many requests this record tells of: refusals that come too fast are told together."""
    seconds: float = 0.0
    prompt: str | None = None
    strategy: str | None = None
    rule: str | None = None
    passed_by: tuple[PassedBy, ...] = ()

    @property
    def time(self) -> int:
        """When the id was made, in µs: a request belongs to the day of that instant."""
        return instant_of(self.id)

    @property
    def price_settled(self) -> int | None:
        """What the calls came to, in µ$; None when one of them had no known price, which the sums count as 0."""
        known = [call.usd for call in self.calls if call.usd is not None]
        return sum(known) if len(known) == len(self.calls) else None

    @property
    def is_presumed(self) -> bool:
        """Whether a part of the price is a guess, since a call's outcome is not known."""
        return any(call.state == "presumed" for call in self.calls)

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The upstreams that were called, in order."""
        return tuple(dict.fromkeys(call.upstream for call in self.calls))

    def to_json(self) -> str:
        return self.model_dump_json(exclude_defaults=True)

    def with_call(self, news: CallFact) -> Record:
        """The record after news of one of its calls, or of one that it did not know."""
        if all(call.id != news.id for call in self.calls):
            return self.model_copy(update={"calls": (*self.calls, news)})
        calls = tuple(call.raised_by(news) if call.id == news.id else call for call in self.calls)
        return self.model_copy(update={"calls": calls})

    def merged(self, other: Record) -> Record:
        """What two records of one request say together: the words of the one that was made while it was known."""
        told, rest = (other, self) if not self.request else (self, other)
        return reduce(Record.with_call, rest.calls, told)

    def lines(self) -> dict[UsageLine, Sums]:
        """What the record adds to its day: money and images at each upstream, the request itself at one of them."""
        found: dict[UsageLine, Sums] = {}
        for call in self.calls:
            line = self._line(call.upstream)
            found[line] = found.get(line, Sums()) + Sums(images=call.images, usd=call.usd or 0)
        line = self._line(self._last_upstream())
        found[line] = found.get(line, Sums()) + Sums(
            requests=self.repeats, errors=self.repeats if self.status >= 400 else 0
        )
        return found

    def _last_upstream(self) -> str:
        """Where the request ended: at the last call that brought an image, else the last that was made."""
        delivering = [call.upstream for call in self.calls if call.images]
        return (delivering or [call.upstream for call in self.calls] or [""])[-1]

    def _line(self, upstream: str) -> UsageLine:
        return UsageLine(self.key, self.team or "", self.model if self.is_model_known else "", upstream)


def describe_hold(hold: Hold) -> Record:
    """The record of a task whose worker died: what the ledger knows of it, and nothing of the request."""
    calls = tuple(
        CallFact(
            id=call.call,
            upstream="",
            target="",
            outcome="lost",
            seconds=0,
            n=call.slots,
            # A guess counts a price; it brought nothing.
            images=call.images if call.state is LedgerAnswer.POSTED else 0,
            usd=call.usd,
            state=cast(SettledState, call.state.value),
        )
        for call in hold.calls
    )
    return Record(
        id=record_id(hold.task),
        request="",
        key=hold.key,
        key_name="",
        task=hold.task,
        team=hold.team or None,
        calls=calls,
        n_asked=hold.images,
        n_delivered=sum(call.images for call in calls),
        status=errors.InternalError.status,
        error=errors.InternalError.code,
    )


class Credit(_Fact):
    """An operator's correction of what was spent, as the sums know it. `usd` is µ$, negative in the caller's favour."""

    id: str
    key: str = ""
    team: str = ""
    usd: int
    reason: str

    def lines(self) -> dict[UsageLine, Sums]:
        return {UsageLine(self.key, self.team, "", CREDIT): Sums(usd=self.usd)}


def record_id(task_id: str) -> str:
    """The id of a task's record: it says the same time, and whoever knows the task finds the record."""
    return f"{PREFIX}_{task_id.partition('_')[2]}"


def instant_of(identifier: str) -> int:
    """When an id was made, in µs since 1970. Raises ValueError."""
    return (time_of(identifier) - _EPOCH) // timedelta(microseconds=1)


def subtract(after: Mapping[UsageLine, Sums], before: Mapping[UsageLine, Sums]) -> dict[UsageLine, Sums]:
    """How the sums move from one state of a record to another."""
    return {line: after.get(line, Sums()) - before.get(line, Sums()) for line in {**before, **after}}
