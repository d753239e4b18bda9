"""Makes a submit-and-poll upstream one awaited call: submit, poll until the ticket ends, collect the pictures.

Called by `dispatch` once a call. Never sends a paid POST twice; polls and downloads are free and are tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal

from gateway.catalogue.catalogue import Target
from gateway.delivery.callbacks import CallbackListener
from gateway.delivery.rhythm import Rhythm
from gateway.jobs.job import Call, FoundImage, Inputs, Ticket, TokenUsage, UpstreamAnswer
from gateway.net.fetcher import Fetcher, FetchFailed, FetchRefused
from gateway.net.outside_text import join_url
from gateway.pictures.spool import Blob, Spool, StorageFullError
from gateway.upstreams import Adapter
from gateway.upstreams.verdict import CallFailed, Failure, Verdict, classify

LEAST_PAUSE = 0.3
"""Seconds between two polls of a ticket at least, however many callbacks come for it."""

_MISSING_FOR = 60.0
"""Seconds a ticket may be unknown to its vendor before it is given up: its own replicas may lag behind."""

Sleep = Callable[[float], Awaitable[None]]
Keep = Callable[[Ticket | UpstreamAnswer], Awaitable[None]]
Doubt = Callable[[Verdict], None]
Resting = Callable[[], AbstractContextManager[None]]


async def forget(told: Ticket | UpstreamAnswer) -> None:
    """What becomes of a ticket, or of links, that nobody else is to follow."""


def accept(verdict: Verdict) -> None:
    """What becomes of a doubt that nobody else is to share."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What one call brought, in order: each picture's bytes, or why they cannot be had, with its revised prompt."""

    pictures: tuple[tuple[Blob | Failure, str | None], ...]
    usage: TokenUsage | None
    credits: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Bridge:
    """One target's adapter with the clock, the fetcher and the ear for callbacks that one call needs.

    `keep` hears of a ticket before it is followed, and of an answer while its links are; `doubt` of an answer that was
    lost while a callback may still come. `resting` is entered while nothing but time is waited for, so that any other
    process could go on.
    """

    target: Target
    upstream: Adapter
    fetcher: Fetcher
    rhythm: Rhythm = field(default_factory=Rhythm)
    ear: CallbackListener = field(default_factory=CallbackListener)
    sleep: Sleep = asyncio.sleep
    resting: Resting = nullcontext
    keep: Keep = forget
    doubt: Doubt = accept

    async def complete(self, call: Call, inputs: Inputs, spool: Spool) -> Collected:
        """Submit the paid call and bring its pictures. Raises CallFailed."""
        first = await self._submit(call, inputs, spool)
        if isinstance(first, UpstreamAnswer):
            made, _ = await asyncio.gather(self.collect(first, spool), self.keep(first))
            return made
        await self.keep(first)
        return await self.resume(first, spool, self.rhythm)

    async def resume(self, ticket: Ticket, spool: Spool, rhythm: Rhythm, within: float | None = None) -> Collected:
        """Bring what a ticket promises, whoever got it; `within` is in place of the upstream's seconds.

        Raises CallFailed.
        """
        answer = await self._follow(ticket, spool, rhythm, within)
        got = await self._collect_all(answer.images, spool)
        if any(isinstance(one, Failure) for one in got):
            got = await self._collect_anew(ticket, got, spool)
        return _make(answer, got)

    async def collect(self, answer: UpstreamAnswer, spool: Spool) -> Collected:
        """Bring the pictures of an answer, whoever got it."""
        return _make(answer, await self._collect_all(answer.images, spool))

    async def _submit(self, call: Call, inputs: Inputs, spool: Spool) -> UpstreamAnswer | Ticket:
        """The paid POST, once; if its answer is lost, the ticket may come by a callback."""
        try:
            return await self.upstream.submit(call, inputs, spool)
        except CallFailed as failed:
            verdict = classify(failed.failure, error_is_unbilled=self.target.config.error_is_unbilled)
            if call.callback_url is None or verdict.kind != "unknown":
                raise
            self.doubt(verdict)
            with self.resting():
                ticket = await self.ear.hear_ticket(self.target.config.timeouts.callback)
            if ticket is None:
                raise
            return ticket

    async def _follow(
        self, ticket: Ticket, spool: Spool, rhythm: Rhythm, within: float | None = None
    ) -> UpstreamAnswer:
        limits = self.target.config.timeouts
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (limits.task if within is None else within)
        missing_since = None
        least, was_told = 0.0, False
        for wait in rhythm.waits(limits.poll_every):
            was_told = await self._rest(least, min(wait, limits.task)) or was_told
            least = min(LEAST_PAUSE, limits.poll_every)
            try:
                if answer := await self.upstream.poll(ticket, spool):
                    self.ear.trust.note(was_told=was_told)
                    return answer
                missing_since, was_told = None, False
            except CallFailed as failed:
                if failed.failure.phase in ("task", "body", "collect"):
                    self.ear.trust.note(was_told=was_told)
                    raise
                least = max(least, min(failed.failure.retry_after or 0, 30))
                if failed.failure.status == 404:
                    missing_since = missing_since or loop.time()
            if missing_since and loop.time() - missing_since > min(_MISSING_FOR, limits.task):
                raise CallFailed(Failure("task", code="expired", message="the upstream no longer knows the task"))
            if loop.time() > deadline:
                break
        raise CallFailed(Failure("task", code="expired", message=f"no end within {limits.task:g} s"))

    async def _rest(self, least: float, seconds: float) -> bool:
        """Wait so long, or until a callback comes, but not shorter than `least`; whether one came."""
        with self.resting():
            if least:
                await self.sleep(least)
            return await self.ear.wait(max(0.0, seconds - least))

    async def _collect_anew(self, ticket: Ticket, got: list[Blob | Failure], spool: Spool) -> list[Blob | Failure]:
        """Once more what could not be had: a link may have died since the poll, and the next answer has a new one."""
        try:
            fresh = (await self._follow(ticket, spool, Rhythm())).images
        except CallFailed:
            # What was downloaded stays; what was not is as lost as before.
            return got
        lost = [index for index, one in enumerate(got) if isinstance(one, Failure) and index < len(fresh)]
        found = await self._collect_all([fresh[index] for index in lost], spool)
        again = dict(zip(lost, found, strict=True))
        return [again.get(index, one) for index, one in enumerate(got)]

    async def _collect_all(self, images: Sequence[FoundImage], spool: Spool) -> list[Blob | Failure]:
        return list(await asyncio.gather(*(self._try_collect(found, spool) for found in images)))

    async def _try_collect(self, found: FoundImage, spool: Spool) -> Blob | Failure:
        # One picture that cannot be had takes none of the others with it: they are paid for.
        try:
            return await self._collect(found, spool)
        except CallFailed as failed:
            return failed.failure
        except StorageFullError as error:
            return Failure("collect", message=f"the gateway's disk takes no more: {error}")

    async def _collect(self, found: FoundImage, spool: Spool) -> Blob:
        """The bytes of one image; a link is tried again until its time is up, for it is paid for."""
        if found.blob is not None:
            return found.blob
        url = join_url(self.target.config.base_url + "/", found.url)
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
            with self.resting():
                await self.sleep(wait)
            wait = min(wait * 2, 5)


def _make(answer: UpstreamAnswer, got: list[Blob | Failure]) -> Collected:
    prompts = (found.revised_prompt for found in answer.images)
    return Collected(tuple(zip(got, prompts, strict=True)), answer.usage, answer.credits)
