"""The record of one request: its caller, its calls and their cost; and the change of a day's sums that follows.

A record never holds a picture or a key's secret, and holds a prompt only where the operator allows it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict

from gateway import errors
from gateway.ids import milliseconds_of
from gateway.money.ledger_results import Hold, LedgerAnswer

PREFIX = "rec"
CREDIT = "(credit)"
"""The upstream of operators' corrections in the sums; no real upstream can have this name."""

SettledState = Literal["held", "void", "presumed", "posted"]
_RISES: tuple[SettledState, ...] = ("held", "void", "presumed", "posted")


class _Fact(BaseModel):
    # A replica of an older version must be able to read a newer version's record.
    model_config = ConfigDict(frozen=True, extra="ignore")


class CallFact(_Fact):
    """One paid call: `outcome` is `delivered` or the verdict on its failure; `images` of `n` images were delivered.

    `usd` is in µ$, None where its price is unknown. `state` is the ledger's: a presumed or posted call is charged.
    `disputed` is the part of the upstream's bill in µ$ that was not believed, and is not charged.
    `promised` and `made` are sizes, set when the upstream made another size than promised.
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
    disputed: int = 0
    promised: str | None = None
    made: tuple[str, ...] = ()

    def raised_by(self, news: CallFact) -> CallFact:
        """Return the call with the state, cost and images of its news if the state rises: the first bill stands."""
        if _RISES.index(news.state) <= _RISES.index(self.state):
            return self
        return self.model_copy(
            update={"state": news.state, "usd": news.usd, "images": news.images, "disputed": news.disputed}
        )


class PassedBy(_Fact):
    """A target that got no call, and the reason: rejected by the plan, no permit, or a price over a limit."""

    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class UsageLine:
    """The key of one line of a day's sums. "" stands for no team, no known model or no upstream."""

    key: str
    team: str
    model: str
    upstream: str


@dataclass(frozen=True, slots=True)
class Sums:
    """Counts of requests, delivered images and requests that ended in an error; µ$ charged, and µ$ disputed."""

    requests: int = 0
    images: int = 0
    errors: int = 0
    usd: int = 0
    disputed: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.requests + other.requests,
            self.images + other.images,
            self.errors + other.errors,
            self.usd + other.usd,
            self.disputed + other.disputed,
        )

    def __sub__(self, other: Sums) -> Sums:
        return Sums(
            self.requests - other.requests,
            self.images - other.images,
            self.errors - other.errors,
            self.usd - other.usd,
            self.disputed - other.disputed,
        )


class Record(_Fact):
    """One request. Prices are in µ$, durations in seconds; None is absent or unknown.

    `status` is the caller's answer, also when the caller disconnected before it. `quality_asked` and `size_asked` None
    mean `auto`. `strategy` is the one that ordered the targets, None if no work began or its worker died.
    """

    id: str
    request: str
    """Empty when its worker died: then the record has only the facts that the worker left in the store."""
    key: str
    key_name: str
    task: str | None = None
    is_joined: bool = False
    """True when another request began the task: that request's record has its images and cost."""
    team: str | None = None
    end_user: str | None = None
    operation: str = "generation"
    model: str = ""
    is_model_known: bool = True
    """False for a model that no catalogue has: the sums count it under "", since callers can invent thousands."""
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
    """The number of requests in this record: refusals in quick succession share one."""
    seconds: float = 0.0
    prompt: str | None = None
    strategy: str | None = None
    rule: str | None = None
    passed_by: tuple[PassedBy, ...] = ()

    @property
    def time(self) -> int:
        """The instant of the id in µs; the request belongs to its day."""
        return instant_of(self.id)

    @property
    def price_settled(self) -> int | None:
        """The cost of the calls in µ$; None if the price of one is unknown. The sums count only that call as 0."""
        known = [call.usd for call in self.calls if call.usd is not None]
        return sum(known) if len(known) == len(self.calls) else None

    @property
    def price_disputed(self) -> int:
        """The part of the upstreams' bills in µ$ that was not believed, and is not charged."""
        return sum(call.disputed for call in self.calls)

    @property
    def is_presumed(self) -> bool:
        """True when part of the price is a guess, since the outcome of a call is unknown."""
        return any(call.state == "presumed" for call in self.calls)

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The upstreams of the calls, each once, in the order of the calls; "" for an unknown one."""
        return tuple(dict.fromkeys(call.upstream for call in self.calls))

    def to_json(self) -> str:
        return self.model_dump_json(exclude_defaults=True)

    def with_call(self, news: CallFact) -> Record:
        """Return the record with news of one of its calls, or with a new call."""
        if all(call.id != news.id for call in self.calls):
            return self.model_copy(update={"calls": (*self.calls, news)})
        calls = tuple(call.raised_by(news) if call.id == news.id else call for call in self.calls)
        return self.model_copy(update={"calls": calls})

    def merged(self, other: Record) -> Record:
        """Return two records of one request as one. It has the calls of both, and else the facts of `self`, or
        of `other` if `self` has no request id.
        """
        full, rest = (other, self) if not self.request else (self, other)
        return reduce(Record.with_call, rest.calls, full)

    def lines(self) -> dict[UsageLine, Sums]:
        """Return the record's part of its day's sums, with money and images of each upstream.

        The request counts at the last upstream that delivered, else at the last one called.
        """
        parts = [
            (call.upstream, Sums(images=call.images, usd=call.usd or 0, disputed=call.disputed)) for call in self.calls
        ]
        request = Sums(requests=self.repeats, errors=self.repeats if self.status >= 400 else 0)
        parts.append((self._last_upstream(), request))
        found: dict[str, Sums] = {}
        for upstream, part in parts:
            found[upstream] = found[upstream] + part if upstream in found else part
        return {self._line(upstream): sums for upstream, sums in found.items()}

    def _last_upstream(self) -> str:
        """Return the upstream of the last call that brought an image, else of the last call."""
        delivering = [call.upstream for call in self.calls if call.images]
        return (delivering or [call.upstream for call in self.calls] or [""])[-1]

    def _line(self, upstream: str) -> UsageLine:
        return UsageLine(self.key, self.team or "", self.model if self.is_model_known else "", upstream)


def describe_hold(hold: Hold) -> Record:
    """Make the record of a task whose worker died: it has the ledger's facts, and none of the request's."""
    calls = tuple(
        CallFact(
            id=call.call,
            upstream="",
            target="",
            outcome="lost",
            seconds=0,
            n=call.slots,
            # A presumed call has a price and no images.
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
    """An operator's correction in the sums. `usd` is in µ$, negative in the caller's favour."""

    id: str
    key: str = ""
    team: str = ""
    usd: int
    reason: str

    def lines(self) -> dict[UsageLine, Sums]:
        return {UsageLine(self.key, self.team, "", CREDIT): Sums(usd=self.usd)}


def record_id(task_id: str) -> str:
    """Return the id of a task's record, which is the task's id with another prefix."""
    return f"{PREFIX}_{task_id.partition('_')[2]}"


def instant_of(identifier: str) -> int:
    """Return the instant of an id in µs since 1970. Raises ValueError."""
    return milliseconds_of(identifier) * 1000


def subtract(after: Mapping[UsageLine, Sums], before: Mapping[UsageLine, Sums]) -> dict[UsageLine, Sums]:
    """Return the change of the sums from one state of a record to another."""
    if not before:
        return dict(after)
    return {line: after.get(line, Sums()) - before.get(line, Sums()) for line in {**before, **after}}
