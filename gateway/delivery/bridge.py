"""A submit-and-poll upstream as one awaited call: submit, poll until the ticket ends, collect the pictures.

The paid POST is sent once. Polls and downloads are free and are repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from decimal import Decimal

import structlog

from gateway.catalogue.catalogue import Target
from gateway.delivery.callbacks import CallbackListener
from gateway.health.condition import Latency
from gateway.jobs.job import Call, FoundImage, Inputs, Ticket, TokenUsage, UpstreamAnswer
from gateway.net.fetcher import Fetcher, FetchFailed, FetchRefused
from gateway.net.outside_text import join_url
from gateway.pictures.spool import Blob, Spool, StorageFullError
from gateway.upstreams import Adapter
from gateway.upstreams.verdict import CallFailed, Failure, Verdict, classify

LEAST_PAUSE = 0.3
"""Least seconds between two polls of a ticket, also with callbacks, unless `poll_every` is less."""

ENOUGH = 20
"""Samples that a median needs before the schedule relies on it."""

_FIRST = 0.5
_GROWTH = 1.3
_SHARE = 0.6
_PAUSE = 2.6
_OVERDUE = 1.5
_SELDOM = 30.0
_JITTER = 0.2

_MISSING_FOR = 60.0
"""Most seconds for which a vendor may answer 404 for a ticket, as its replicas may lag; then it has expired."""

_log = structlog.get_logger(__name__)

Sleep = Callable[[float], Awaitable[None]]
Keep = Callable[[Ticket | UpstreamAnswer], Awaitable[None]]
OnLostAnswer = Callable[[Verdict], None]
Resting = AbstractContextManager[None]


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """The waits before the polls of a ticket: `first` seconds, `pause` seconds, then `growth` times more each.

    `is_learned` means that the first wait comes from measured times, and that the longest wait does not bound it.
    """

    first: float = _FIRST
    pause: float = _FIRST * _GROWTH
    growth: float = _GROWTH
    is_learned: bool = False

    @classmethod
    def of(cls, latency: Latency | None, *, is_called_back: bool = False) -> PollSchedule:
        """Return the schedule for a target. A median of enough samples sets its first poll; constant pauses follow.

        Without such a median, the first poll comes after half a second, and the pauses grow. With `is_called_back` all
        polls are late and rare: they only find the ends that no callback reported.
        """
        is_known = latency is not None and latency.samples >= ENOUGH
        if latency is None or not is_known:
            return cls(_SELDOM, _SELDOM, 1.0) if is_called_back else cls()
        share, pause = (_OVERDUE, _SELDOM) if is_called_back else (_SHARE, _PAUSE)
        return cls(share * latency.median, pause, 1.0, is_learned=True)

    # The jitter keeps no secret.
    def waits(self, longest: float, draw: Callable[[], float] = random.random) -> Iterator[float]:
        """Yield the seconds before each poll, each made up to a fifth longer or shorter by chance.

        Before that, no wait is longer than `longest` seconds, except a learned first one.
        """
        wait, pause = self.first if self.is_learned else min(self.first, longest), self.pause
        while True:
            yield wait * (1 - _JITTER + 2 * _JITTER * draw())
            wait, pause = min(pause, longest), pause * self.growth


@dataclass(frozen=True, slots=True)
class Collected:
    """The pictures of one call in the order of its slots, perhaps fewer: bytes or failure, and revised prompt."""

    pictures: tuple[tuple[Blob | Failure, str | None], ...]
    usage: TokenUsage | None
    credits: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Bridge:
    """One target's adapter with the schedule and the fetcher of one call, and its listener where callbacks may come.

    `resting` is entered while the call only waits for time to pass, so that any other process could continue it.
    """

    target: Target
    upstream: Adapter
    fetcher: Fetcher
    schedule: PollSchedule = field(default_factory=PollSchedule)
    listener: CallbackListener | None = None
    sleep: Sleep = asyncio.sleep
    resting: Resting = field(default_factory=nullcontext)

    async def complete(
        self,
        call: Call,
        inputs: Inputs,
        spool: Spool,
        keep: Keep | None = None,
        on_lost_answer: OnLostAnswer | None = None,
    ) -> Collected:
        """Submit the paid call, once, and collect its pictures. Raises CallFailed.

        `keep` gets a ticket before it is polled, and an answer of links while its pictures are downloaded.
        `on_lost_answer` gets the verdict if the answer was lost and a callback may still name the ticket. A picture
        that cannot be downloaded is a Failure in the result.
        """
        first = await self._submit(call, inputs, spool, on_lost_answer)
        if isinstance(first, Ticket):
            if keep:
                await keep(first)
            return await self.resume(first, spool, call.n, self.schedule)
        first = self._choose(first, call.n)
        if keep is None or any(one.url is None for one in first.images):
            # No other process could collect an answer in which a link is missing.
            return await self.collect(first, spool, call.n)
        collected, _ = await asyncio.gather(self.collect(first, spool, call.n), keep(first))
        return collected

    async def resume(
        self, ticket: Ticket, spool: Spool, most: int, schedule: PollSchedule, within: float | None = None
    ) -> Collected:
        """Poll a ticket until it ends, and download its pictures, no more than `most`.

        `within` is seconds, and replaces `timeouts.task`. A picture that cannot be downloaded is a Failure in the
        result. Raises CallFailed when the ticket fails, expires or does not end in time.
        """
        answer = self._choose(await self._follow(ticket, spool, schedule, within), most)
        found = await self._collect_all(answer.images, spool)
        if any(isinstance(one, Failure) for one in found):
            found = await self._collect_anew(ticket, found, spool)
        return _join(answer, found)

    async def collect(self, answer: UpstreamAnswer, spool: Spool, most: int) -> Collected:
        """Download the pictures of an answer, no more than `most`. One that fails is a Failure in the result."""
        answer = self._choose(answer, most)
        return _join(answer, await self._collect_all(answer.images, spool))

    def _choose(self, answer: UpstreamAnswer, most: int) -> UpstreamAnswer:
        """Return the answer with no more than `most` images. If it has more, readable ones come first."""
        if len(answer.images) <= most:
            return answer
        readable: list[FoundImage] = []
        others: list[FoundImage] = []
        for one in answer.images:
            (readable if one.blob is not None or self._find_link(one) else others).append(one)
            if len(readable) == most:
                break
        return replace(answer, images=(*readable, *others)[:most])

    def _find_link(self, found: FoundImage) -> str | None:
        return join_url(self.target.config.base_url + "/", found.url)

    async def _submit(
        self, call: Call, inputs: Inputs, spool: Spool, on_lost_answer: OnLostAnswer | None
    ) -> UpstreamAnswer | Ticket:
        """Send the paid POST, once. If its answer is lost, wait for a callback with the ticket. Raises CallFailed."""
        try:
            return await self.upstream.submit(call, inputs, spool)
        except CallFailed as failed:
            verdict = classify(failed.failure, error_is_unbilled=self.target.config.error_is_unbilled)
            if self.listener is None or verdict.kind != "unknown":
                raise
            if on_lost_answer:
                on_lost_answer(verdict)
            with self.resting:
                ticket = await self.listener.wait_for_ticket(self.target.config.timeouts.callback)
            if ticket is None:
                raise
            return ticket

    async def _follow(
        self, ticket: Ticket, spool: Spool, schedule: PollSchedule, within: float | None = None
    ) -> UpstreamAnswer:
        limits = self.target.config.timeouts
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (limits.task if within is None else within)
        missing_since = None
        least, was_told = 0.0, False
        for wait in schedule.waits(limits.poll_every):
            was_told = await self._rest(least, min(wait, limits.task)) or was_told
            least = min(LEAST_PAUSE, limits.poll_every)
            try:
                if answer := await self.upstream.poll(ticket, spool):
                    self._note_end(was_told=was_told)
                    return answer
                missing_since, was_told = None, False
            except CallFailed as failed:
                if failed.failure.phase in ("task", "body", "collect"):
                    self._note_end(was_told=was_told)
                    raise
                least = max(least, min(failed.failure.retry_after or 0, 30, max(0.0, deadline - loop.time())))
                if failed.failure.status == 404:
                    missing_since = missing_since or loop.time()
            if missing_since and loop.time() - missing_since > min(_MISSING_FOR, limits.task):
                raise CallFailed(Failure("task", code="expired", message="the upstream no longer knows the task"))
            if loop.time() > deadline:
                break
        raise CallFailed(Failure("task", code="expired", message=f"no end within {limits.task:g} s"))

    async def _rest(self, least: float, seconds: float) -> bool:
        """Wait for `seconds` or until a callback comes, but at least `least` seconds. Returns True for a callback."""
        with self.resting:
            if self.listener is None:
                await self.sleep(max(least, seconds))
                return False
            if least:
                await self.sleep(least)
            return await self.listener.wait(max(0.0, seconds - least))

    def _note_end(self, *, was_told: bool) -> None:
        """Count in the target's callback trust that a ticket has ended, by a callback's report or by a poll."""
        if self.listener:
            self.listener.trust.note(was_told=was_told)

    async def _collect_anew(self, ticket: Ticket, found: list[Blob | Failure], spool: Spool) -> list[Blob | Failure]:
        """Poll again and retry the failed downloads: a link may have died, and the next answer has a new one."""
        try:
            fresh = self._choose(await self._follow(ticket, spool, PollSchedule()), len(found)).images
        except CallFailed:
            # Pictures that were downloaded stay; the others are as lost as before.
            return found
        lost = [index for index, one in enumerate(found) if isinstance(one, Failure) and index < len(fresh)]
        collected = await self._collect_all([fresh[index] for index in lost], spool)
        again = dict(zip(lost, collected, strict=True))
        return [again.get(index, one) for index, one in enumerate(found)]

    async def _collect_all(self, images: Sequence[FoundImage], spool: Spool) -> list[Blob | Failure]:
        if len(images) == 1:
            return [await self._try_collect(images[0], spool)]
        return list(await asyncio.gather(*(self._try_collect(found, spool) for found in images)))

    async def _try_collect(self, found: FoundImage, spool: Spool) -> Blob | Failure:
        # A picture that cannot be downloaded does not fail the others: they are paid for.
        try:
            return await self._collect(found, spool)
        except CallFailed as failed:
            return failed.failure
        except StorageFullError:
            return Failure("collect", message="the gateway's disk is full")
        except Exception:  # noqa: BLE001 (one picture's failure must not fail the others)
            _log.exception("the gateway could not download a picture")
            return Failure("collect", message="the gateway could not download it")

    async def _collect(self, found: FoundImage, spool: Spool) -> Blob:
        """Download one image; retry for `timeouts.collect` seconds, since it is paid for. Raises CallFailed."""
        if found.blob is not None:
            return found.blob
        url = self._find_link(found)
        if url is None:
            raise CallFailed(Failure("collect", message="the picture's link is not a URL"))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.target.config.timeouts.collect
        wait = 0.2
        while True:
            try:
                return await self.fetcher.fetch(url, spool)
            except FetchRefused as refused:
                raise CallFailed(Failure("collect", message=str(refused))) from refused
            except FetchFailed as failed:
                is_dead = failed.status in (403, 404, 410)
                if is_dead or failed.kind == "too_large" or loop.time() + wait > deadline:
                    raise CallFailed(Failure("collect", status=failed.status, message=str(failed))) from failed
            with self.resting:
                await self.sleep(wait)
            wait = min(wait * 2, 5)


def _join(answer: UpstreamAnswer, found: list[Blob | Failure]) -> Collected:
    prompts = (image.revised_prompt for image in answer.images)
    return Collected(tuple(zip(found, prompts, strict=True)), answer.usage, answer.credits)
