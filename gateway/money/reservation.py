"""Quota enforcement: the reservation of a task holds its price in the ledger, settles its calls and releases the rest.

This module decides on no retry. While Redis is unavailable it refuses to hold or mark anything; all other steps wait in
`pending_posts`, in memory and without a bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import structlog

from gateway import errors
from gateway.catalogue.document import Document
from gateway.catalogue.pricing import Quote
from gateway.catalogue.rules import CallerIdentity
from gateway.errors import PublicError
from gateway.jobs.job import Call, ImageJob, Repeat, Ticket, UpstreamAnswer
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
    Settled,
    TooMany,
    Unpriced,
)
from gateway.money.unknown_outcome import charge_of, settle_unknown, state_after
from gateway.routing.plan import Plan
from gateway.state.call_store import Binding, CallNote, CallStore, Links, encode_note
from gateway.store.client import Command, StoreUnavailable
from gateway.store.outbox import Outbox
from gateway.store.windows import MICROSECONDS

FIRST_FENCE = 1
"""The fence of a task that no worker adopted."""

ANSWERED_AGAIN_S = 86_400
"""Seconds for which a retry gets an ended task's answer, while its pictures live."""

MOST_PATIENCE_S = 86_400.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Books:
    """The parts that a reservation needs. `worker` is this process's name in the ledger."""

    ledger: Ledger
    calls: CallStore
    pending_posts: PendingPosts
    document: Document
    worker: str


@dataclass(slots=True)
class Reservation:
    """The reservation of one task. `price` is the µ$ that each unsent image holds; None if unknown.

    `spent` is the cost of its calls so far, in µ$; None once a call had no known price. `is_doubtful` is True once a
    part of it is presumed, or a call is held for an operator.
    """

    books: Books
    task: str
    images: int
    price: int | None
    fence: int = FIRST_FENCE
    rates: tuple[Rate, ...] = ()
    spent: int | None = 0
    is_doubtful: bool = False
    _last_post: Command[Settled | None] | None = None

    @property
    def _ledger(self) -> Ledger:
        return self.books.ledger

    async def afford(self, quote: Quote | None) -> PublicError | None:
        """Hold the price of a target for all unsent images before it is tried. A quote of None is an unknown price.

        Returns the error if a limit or the ledger refuses it, or the ledger is unavailable: then skip the target.
        """
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
        # Slots that hold more keep it; an unknown price raises nothing.
        self.price = price if price is None or self.price is None else max(price, self.price)
        return None

    async def mark_sent(self, call: Call, quote: Quote | None, policy: Policy, note: CallNote) -> None:
        """Mark a paid call as sent before its first byte, with the facts by which any process can finish it.

        Raises PublicError if the ledger refuses it or is unavailable: then do not send it.
        """
        price = None if quote is None else quote.expected
        words = (self.task, call.id, call.slots, price, self.fence, policy, encode_note(note))
        try:
            answer = await self._ledger.mark_sent(*words)
        except StoreUnavailable as error:
            # Redis may have written the mark. The call was not sent: this evidence frees its slots again.
            await self.nack(call)
            raise ledger_unavailable(error) from error
        if answer is not LedgerAnswer.HELD:
            raise _lost(answer)

    async def keep(self, call: Call, note: CallNote, found: Ticket | UpstreamAnswer) -> None:
        """Store the vendor's ticket or links, so that any process can collect the call's pictures.

        An answer with an image that has no link stores nothing. While Redis is unavailable, the step waits in memory.
        """
        calls = self.books.calls

        async def bind(ticket: Ticket) -> None:
            bound = await calls.bind(self.task, call.id, note.upstream, note.credential, ticket)
            if bound.binding is not Binding.BOUND:
                _log.error("two calls have the same ticket", call=call.id, ticket=ticket.id, found=bound.stands)

        if isinstance(found, Ticket):
            await self.books.pending_posts.book(f"ticket {call.id}", partial(bind, found))
        elif links := Links.of(found):
            await self.books.pending_posts.book(
                f"links {call.id}", partial(calls.keep_links, self.task, call.id, links)
            )

    async def nack(self, call: Call) -> None:
        """Record in the ledger that a call was not accepted, which frees its slots."""
        await self._book("nack", lambda: self._ledger.nack(self.task, call.id))

    async def post(self, call: Call, usd: int | None, images: int, *, is_last: bool = False) -> None:
        """Charge the real cost of a call, in µ$, and its number of images. None is an unknown cost: it charges 0.

        If `is_last`, the charge waits for `close`, which must be the next step. No image is handed out before it.
        """
        self._count(usd)
        command = self._ledger.make_post(self.task, call.id, usd or 0, images)
        if is_last:
            self._last_post = command
        else:
            await self._book("post", lambda: self._ledger.run_chain(command))

    async def give_up(self, call: Call, quote: Quote | None, policy: Policy, error: PublicError) -> int | None:
        """Settle a call of unknown outcome by its policy. Return the charge in µ$; None if it is an unknown price.

        `hold` leaves the call to an operator, and charges 0. `release` charges 0 too: the ledger then has the call as
        void, and only the stored `error` shows other processes that it was sent.
        """
        if state_after(policy) is LedgerAnswer.VOID:
            keep = partial(self.books.calls.keep_error, self.task, call.id, error.to_facts())
            await self.books.pending_posts.book(f"error {call.id}", keep)
        usd = charge_of(policy, None if quote is None else quote.expected * call.n)
        self._count(usd)
        self.is_doubtful = self.is_doubtful or state_after(policy) is not LedgerAnswer.VOID
        await self._book("give up", lambda: settle_unknown(self._ledger, self.task, call.id, self.fence, policy))
        return usd

    async def close(self, how: CloseReason = "", *then: Command[Any]) -> None:
        """Close the task in the ledger, and release the slots that will never be sent.

        The last charge, and the commands of `then`, run in the same step.
        """
        commands = [] if self._last_post is None else [self._last_post]
        commands += [self._ledger.make_close(self.task, self.fence, how), *then]
        self._last_post = None
        await self._book("close", lambda: self._ledger.run_chain(*commands))

    def _count(self, usd: int | None) -> None:
        self.spent = None if usd is None or self.spent is None else self.spent + usd

    async def _book(self, what: str, step: Step) -> None:
        async def checked() -> None:
            found = await step()
            answers = found if isinstance(found, list) else [found]
            if LedgerAnswer.FENCED in answers:
                _log.warning("another worker has adopted this task", task=self.task, what=what)
            if None in answers or LedgerAnswer.UNKNOWN in answers:
                _log.error("the ledger does not know the task or call", task=self.task, what=what)

        await self.books.pending_posts.book(f"{what} {self.task}", checked)


Steps = tuple[Sequence[Command[Any]], Sequence[Command[Any]]]
"""Commands that run after an admission, in the same step; and those that undo them if the step's reply is lost."""


def make_mark(  # noqa: PLR0913 (the parts of a mark)
    books: Books,
    task: str,
    call: Call,
    quote: Quote | None,
    policy: Policy,
    note: CallNote,
    tell: Callable[[LedgerAnswer], None],
) -> Command[None]:
    """The command that marks a call as sent in the step that opens its task. `tell` gets the answer."""
    price = None if quote is None else quote.expected
    return books.ledger.make_mark(task, call.id, call.slots, price, policy, encode_note(note), tell)


async def reserve(  # noqa: PLR0913 (the parts of an opening)
    books: Books,
    identity: CallerIdentity,
    job: ImageJob,
    plan: Plan,
    task: str,
    repeat: Repeat,
    make_steps: Callable[[Plan], Awaitable[Steps]],
) -> tuple[Reservation, Plan] | Joined:
    """Join an equal task, or admit this one and hold the price of its first target.

    The steps for the plan run after an admission. If a limit in dollars is set and the first target's price is unknown,
    the returned plan has only targets of known price. A request whose plan has a refusal can only join an earlier task.
    Raises that refusal, IdempotencyMismatch, RateLimited, InsufficientQuota, InvalidValue,
    UpstreamUnavailable, QuotaStoreUnavailable, TaskCanceled and InternalError; then nothing stays held.
    """
    while True:
        opening = _opening(books, identity, job, task, plan, repeat)
        price = opening.price
        answer = await _open(books, job, opening, await make_steps(plan))
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
                raise limit_messages.refuse_too_many(answer)
            case Unpriced():
                plan = _keep_priced(plan, answer)
            case _:
                raise _lost(answer)


async def look_ahead(
    books: Books, identity: CallerIdentity, job: ImageJob, plan: Plan
) -> tuple[Plan, PublicError | None]:
    """Return the plan that `reserve` would return, and the error of a limit at this instant, or None. Holds nothing.

    Raises the refusal of a plan without choices, QuotaStoreUnavailable, UpstreamUnavailable if a limit leaves none.
    """
    if plan.refusal and not plan.choices:
        raise plan.refusal
    try:
        standings = await books.ledger.look(identity.key, identity.team)
    except StoreUnavailable as error:
        raise ledger_unavailable(error) from error
    if plan.choices[0].quote is None and (limit := limit_messages.find_dollars(standings)):
        answer = Unpriced(limit.limit, limit.scope)
        plan = _keep_priced(plan, answer)
    quote = plan.choices[0].quote
    return plan, limit_messages.foresee_refusal(standings, price=quote.ceiling * job.n if quote else 0, images=job.n)


async def look_at_rates(books: Books, identity: CallerIdentity) -> dict[str, str]:
    """Return the `x-ratelimit-*` headers of a caller that reserved nothing; none while Redis is unavailable."""
    try:
        standings = await books.ledger.look(identity.key, identity.team)
    except StoreUnavailable:
        return {}
    return limit_messages.rate_headers(limit_messages.rates_of(standings))


def _keep_priced(plan: Plan, answer: Unpriced) -> Plan:
    kept = plan.keep_priced(f"its price is unknown, and {answer.limit} is set")
    if not kept.choices:
        raise unpriced(answer)
    return kept


def ledger_unavailable(reason: StoreUnavailable | None = None) -> errors.QuotaStoreUnavailable:
    if isinstance(reason, LedgerLost):
        return errors.QuotaStoreUnavailable(
            "The gateway's Redis was emptied or restored, so the gateway starts nothing that costs money until its "
            "operator has run `imagegate audit --accept`.",
            retry_after=60,
        )
    return errors.QuotaStoreUnavailable(
        "The gateway's Redis does not answer, so it starts nothing that costs money. Try again shortly.", retry_after=5
    )


def unpriced(answer: Unpriced) -> PublicError:
    return errors.UpstreamUnavailable(
        f"A limit in dollars is set ({answer.limit}, {answer.scope}), and no upstream that could serve this request "
        "has a known price. The gateway's operator can set one in the catalogue.",
        should_retry=False,
    )


def _opening(books: Books, identity: CallerIdentity, job: ImageJob, task: str, plan: Plan, repeat: Repeat) -> Opening:
    document = books.document
    quote = plan.choices[0].quote if plan.choices else None
    return Opening(
        task=task,
        key=identity.key,
        team=identity.team,
        # Without a fingerprint no request can repeat the task.
        fingerprint=repeat.fingerprint or hashlib.sha256(task.encode()).hexdigest(),
        price=None if quote is None else quote.ceiling,
        images=job.n,
        worker=books.worker,
        idempotency=repeat.idempotency,
        retry=repeat.retry,
        form="join" if plan.refusal else repeat.form,
        patience=round(min(repeat.patience, MOST_PATIENCE_S) * MICROSECONDS),
        orphans=round(document.join.orphans * MICROSECONDS),
        # An answer cannot be repeated once its pictures have expired.
        keep=min(ANSWERED_AGAIN_S, document.limits.artifact_ttl) * MICROSECONDS,
    )


async def _open(
    books: Books, job: ImageJob, opening: Opening, steps: Steps
) -> Admitted | Joined | OverLimit | TooMany | Unpriced | LedgerAnswer:
    if books.pending_posts.is_behind:
        raise ledger_unavailable()
    then, undo = steps
    try:
        return await books.ledger.open(opening, *then)
    except LedgerLost as error:
        raise ledger_unavailable(error) from error
    except BaseException as error:
        # Redis may have opened the task: its reply was lost, nobody waits for it, or a step after it failed.
        await Reservation(books, opening.task, job.n, opening.price).close("", *undo)
        if isinstance(error, StoreUnavailable):
            raise ledger_unavailable(error) from error
        raise


def _lost(answer: LedgerAnswer) -> PublicError:
    """Make the error of a refused step: the task was canceled, or another worker adopted it after a missed lease."""
    if answer is LedgerAnswer.CLOSED:
        return errors.TaskCanceled("The task was canceled before anything was sent for it.")
    _log.error("another worker has adopted this task", answer=answer.value)
    return errors.InternalError(
        "Another worker took over this request; this one sends nothing more for it.", should_retry=False
    )


PAUSE_S = 0.5
"""Seconds between two attempts of a step that waits."""

Step = Callable[[], Awaitable[object]]


class PendingPosts:
    """The ledger steps of one process. A step that Redis did not take waits, and is repeated until Redis takes it.

    Each step must be idempotent by its ids, since a try without an answer may have been taken.
    """

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        # One at a time, so that a call's steps keep their order; without a bound, since no evidence may be lost.
        self.outbox: Outbox[Step] = Outbox("pending posts", lambda step: step(), at_once=1, pause_s=pause_s)
        self._numbers = count(1)

    @property
    def is_behind(self) -> bool:
        """True when a step waits for Redis: nothing new may begin."""
        return bool(self.outbox.waiting)

    async def book(self, what: str, step: Step) -> None:
        """Run the step now; if others wait or Redis is unavailable, queue it behind them.

        A step that the store refuses is logged and dropped. `what` names the step in the log.
        """
        await self.outbox.write(f"{what} ({next(self._numbers)})", step)

    async def wait(self) -> None:
        """Wait until no step waits for Redis."""
        await self.outbox.wait()
