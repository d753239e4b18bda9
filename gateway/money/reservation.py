"""A task's reservation: admitted and held in the ledger, moved as its calls are sent and settled, released at its end.

Opened by `tasks`, moved by `dispatch`. Never decides what may be retried, and never loses evidence: what Redis cannot
take now waits in the backlog.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial

import structlog

from gateway import errors
from gateway.catalogue.document import Document
from gateway.catalogue.pricing import Quote
from gateway.catalogue.rules import CallerIdentity
from gateway.errors import PublicError
from gateway.jobs.fingerprint import Repeat
from gateway.jobs.job import Call, ImageJob, Ticket, UpstreamAnswer
from gateway.money import limit_messages
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import (
    Admitted,
    CloseReason,
    Joined,
    LedgerAnswer,
    LedgerLost,
    Opening,
    OverLimit,
    Policy,
    Rate,
    TooMany,
    Unpriced,
)
from gateway.money.pending_posts import PendingPosts, Step
from gateway.money.unknown_outcome import charge_of, settle_unknown, state_after
from gateway.routing.plan import Plan
from gateway.state.call_record import CallNote, Links
from gateway.state.call_store import Binding, CallStore, say_note
from gateway.store.client import StoreUnavailable
from gateway.store.windows import MICROSECONDS

FIRST_FENCE = 1
"""The fence of a task that nobody adopted."""

ANSWERED_AGAIN_S = 86_400
"""Seconds for which an end is answered again, while its pictures live."""

MOST_PATIENCE_S = 86_400.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Books:
    """All that a reservation touches. `worker` is this process's name in the ledger."""

    ledger: Ledger
    calls: CallStore
    pending_posts: PendingPosts
    document: Document
    worker: str


@dataclass(slots=True)
class Reservation:
    """What is held for one task of `images`. `price` is what each unsent image holds, in µ$; None where unknown.

    `spent` is what its calls came to so far, in µ$; None once one of them had no known price. `is_doubtful`: some of it
    is presumed.
    """

    books: Books
    task: str
    images: int
    price: int | None
    fence: int = FIRST_FENCE
    rates: tuple[Rate, ...] = ()
    spent: int | None = 0
    is_doubtful: bool = False

    @property
    def _ledger(self) -> Ledger:
        return self.books.ledger

    async def afford(self, quote: Quote | None) -> PublicError | None:
        """Hold what a target may cost before it is tried; the refusal when a limit is in the way, and then skip it."""
        price = None if quote is None else quote.ceiling
        if price == self.price or (price is not None and self.price is not None and price < self.price):
            return None
        try:
            answer = await self._ledger.raise_price(self.task, price, self.fence)
        except StoreUnavailable as error:
            return ledger_unavailable(error)
        if isinstance(answer, OverLimit):
            return limit_messages.refuse(answer, price=(price or 0) * self.images, images=self.images)
        if isinstance(answer, Unpriced):
            return unpriced(answer)
        if answer is not LedgerAnswer.RAISED:
            return _lost(answer)
        # Slots that are held for more stay so; a price that is not known raises nothing.
        self.price = price if price is None or self.price is None else max(price, self.price)
        return None

    async def mark_sent(self, call: Call, quote: Quote | None, policy: Policy, note: CallNote) -> None:
        """Write a paid call down before its first byte, with what finishes it elsewhere.

        Raises PublicError: do not send.
        """
        price = None if quote is None else quote.expected
        words = (self.task, call.id, call.slots, price, self.fence, policy, say_note(note))
        try:
            answer = await self._ledger.mark_sent(*words)
        except StoreUnavailable as error:
            # The mark may have been made: that it was not sent is the evidence which frees its slots again.
            await self.nack(call)
            raise ledger_unavailable(error) from error
        if answer is not LedgerAnswer.HELD:
            raise _lost(answer)

    async def keep(self, call: Call, note: CallNote, told: Ticket | UpstreamAnswer) -> None:
        """Book the vendor's ticket, or its links: from here on any process can bring the call's pictures."""
        calls = self.books.calls

        async def bind(ticket: Ticket) -> None:
            bound = await calls.bind(self.task, call.id, note.upstream, note.credential, ticket)
            if bound.binding is not Binding.BOUND:
                _log.error("a ticket is not this call's alone", call=call.id, ticket=ticket.id, found=bound.stands)

        if isinstance(told, Ticket):
            await self.books.pending_posts.book(f"ticket {call.id}", partial(bind, told))
        elif links := Links.of(told):
            await self.books.pending_posts.book(
                f"links {call.id}", partial(calls.keep_links, self.task, call.id, links)
            )

    async def nack(self, call: Call) -> None:
        """Book the proof that a call was not accepted."""
        await self._book("nack", lambda: self._ledger.nack(self.task, call.id))

    async def post(self, call: Call, usd: int | None, images: int) -> None:
        """Book what a call cost, and how many images it brought."""
        self._count(usd)
        await self._book("post", lambda: self._ledger.post(self.task, call.id, usd or 0, images))

    async def give_up(self, call: Call, quote: Quote | None, policy: Policy) -> int | None:
        """Settle a call whose outcome nobody knows, as its upstream's policy says; answers the µ$ it is charged."""
        usd = charge_of(policy, None if quote is None else quote.expected * call.n)
        self._count(usd)
        self.is_doubtful = self.is_doubtful or state_after(policy) is not LedgerAnswer.VOID
        await self._book("give up", lambda: settle_unknown(self._ledger, self.task, call.id, self.fence, policy))
        return usd

    async def close(self, how: CloseReason = "") -> None:
        """Release what will never be sent."""
        await self._book("close", lambda: self._ledger.close(self.task, self.fence, how))

    def _count(self, usd: int | None) -> None:
        self.spent = None if usd is None or self.spent is None else self.spent + usd

    async def _book(self, what: str, step: Step) -> None:
        async def checked() -> None:
            answer = await step()
            if answer is LedgerAnswer.FENCED:
                _log.warning("another worker has taken this task over", task=self.task, what=what)
            elif answer in (None, LedgerAnswer.UNKNOWN):
                _log.error("the ledger does not know what was booked", task=self.task, what=what)

        await self.books.pending_posts.book(f"{what} {self.task}", checked)


async def reserve(
    books: Books, identity: CallerIdentity, job: ImageJob, plan: Plan, task: str, repeat: Repeat
) -> tuple[Reservation, Plan] | Joined:
    """Join a task that makes the same, or admit this one and hold its first target's price.

    Answers the plan without targets whose price must be known. A plan with a refusal can only be joined: the caller's
    earlier request may have begun what could not be begun now. Raises that refusal, IdempotencyMismatch, RateLimited,
    InsufficientQuota, InvalidValue, UpstreamUnavailable, QuotaStoreUnavailable: nothing is held.
    """
    while True:
        opening = _opening(books, identity, job, task, plan, repeat)
        price = opening.price
        answer = await _open(books, job, opening)
        match answer:
            case Joined():
                return answer
            case LedgerAnswer.MISMATCH:
                raise errors.IdempotencyMismatch(
                    "This Idempotency-Key was used for another request; use a new one for each request."
                )
            case LedgerAnswer.NOTHING if plan.refusal:
                raise plan.refusal
            case Admitted():
                return Reservation(books, task, job.n, price, answer.fence, answer.rates), plan
            case OverLimit():
                raise limit_messages.refuse(answer, price=(price or 0) * job.n, images=job.n)
            case TooMany():
                raise limit_messages.refuse_ever(answer)
            case Unpriced():
                plan = _keep_priced(plan, answer)
            case _:
                raise _lost(answer)


async def look_ahead(
    books: Books, identity: CallerIdentity, job: ImageJob, plan: Plan
) -> tuple[Plan, PublicError | None]:
    """The plan as `reserve` would leave it, and the refusal it would meet at this instant. Holds nothing.

    Raises the plan's refusal, QuotaStoreUnavailable, and UpstreamUnavailable where a limit in dollars leaves no target.
    """
    if plan.refusal:
        raise plan.refusal
    try:
        standings = await books.ledger.look(identity.key, identity.team)
    except StoreUnavailable as error:
        raise ledger_unavailable(error) from error
    if plan.choices[0].quote is None and (limit := limit_messages.find_dollars(standings)):
        answer = Unpriced(limit.limit, limit.scope)
        plan = _keep_priced(plan, answer)
    quote = plan.choices[0].quote
    return plan, limit_messages.foresee(standings, price=quote.ceiling * job.n if quote else 0, images=job.n)


async def look_at_rates(books: Books, identity: CallerIdentity) -> dict[str, str]:
    """The `x-ratelimit-*` headers of a caller that opened nothing; none while Redis is away."""
    try:
        standings = await books.ledger.look(identity.key, identity.team)
    except StoreUnavailable:
        return {}
    return limit_messages.rate_headers(limit_messages.rates_of(standings))


def _keep_priced(plan: Plan, answer: Unpriced) -> Plan:
    kept = plan.keep_priced(f"its price is not known, and {answer.limit} is set")
    if not kept.choices:
        raise unpriced(answer)
    return kept


def ledger_unavailable(reason: StoreUnavailable | None = None) -> errors.QuotaStoreUnavailable:
    if isinstance(reason, LedgerLost):
        return errors.QuotaStoreUnavailable(
            "The gateway's Redis was emptied or put back, so nothing that costs money is started until its operator "
            "has run `imagegate audit --accept`.",
            retry_after=60,
        )
    return errors.QuotaStoreUnavailable(
        "The gateway's Redis does not answer, so nothing that costs money is started. Try again shortly.", retry_after=5
    )


def unpriced(answer: Unpriced) -> PublicError:
    return errors.UpstreamUnavailable(
        f"A limit in dollars is set ({answer.limit}, {answer.scope}), and no upstream that could serve this request "
        "has a known price. The gateway's operator can give it one in the catalogue.",
        should_retry=False,
    )


def _opening(books: Books, identity: CallerIdentity, job: ImageJob, task: str, plan: Plan, repeat: Repeat) -> Opening:
    document = books.document
    quote = plan.choices[0].quote if plan.choices else None
    return Opening(
        task=task,
        key=identity.key,
        team=identity.team,
        # Work that no request can repeat is like no other.
        fingerprint=repeat.fingerprint or hashlib.sha256(task.encode()).hexdigest(),
        price=None if quote is None else quote.ceiling,
        images=job.n,
        worker=books.worker,
        idempotency=repeat.idempotency,
        retry=repeat.retry,
        form="join" if plan.refusal else repeat.form,
        patience=round(min(repeat.patience, MOST_PATIENCE_S) * MICROSECONDS),
        orphans=round(document.join.orphans * MICROSECONDS),
        # A picture that has expired cannot be answered again.
        keep=min(ANSWERED_AGAIN_S, document.limits.artifact_ttl) * MICROSECONDS,
    )


async def _open(
    books: Books, job: ImageJob, opening: Opening
) -> Admitted | Joined | OverLimit | TooMany | Unpriced | LedgerAnswer:
    if books.pending_posts.is_behind:
        raise ledger_unavailable()
    try:
        return await books.ledger.open(opening)
    except LedgerLost as error:
        raise ledger_unavailable(error) from error
    except StoreUnavailable as error:
        # It may have been opened, and its reply lost: nothing will be sent for it.
        await Reservation(books, opening.task, job.n, opening.price).close()
        raise ledger_unavailable(error) from error


def _lost(answer: LedgerAnswer) -> PublicError:
    """A step was refused by somebody else's: this process slept through its lease, and another has the task now."""
    if answer is LedgerAnswer.CLOSED:
        return errors.TaskCanceled("The task was canceled before anything was sent for it.")
    _log.error("a task is not ours any more", answer=answer.value)
    return errors.InternalError(
        "The gateway lost hold of this request; nothing more is sent for it.", should_retry=False
    )
