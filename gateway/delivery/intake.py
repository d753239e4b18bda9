"""What a paid call brings is taken in: pictures are checked, a receipt is written down, and then they may be paid.

Used by `dispatch` for its own calls and by `collecting` for those of dead workers. Never posts, retries or judges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import structlog
from redis.exceptions import ResponseError

from gateway.artifacts import Artifact
from gateway.artifacts.links import link
from gateway.catalogue import pricing
from gateway.delivery import bridge
from gateway.delivery.receiver import Developed, Receiver
from gateway.jobs.job import Call, ImageJob, TokenUsage
from gateway.jobs.sizes import Size
from gateway.pictures.spool import Blob, Spool, StorageFullError
from gateway.routing.plan import Choice
from gateway.services import Services
from gateway.state.call_store import CallNote, Receipt
from gateway.state.task_store import TaskImage
from gateway.store.client import StoreUnavailable
from gateway.upstreams.verdict import CallFailed, Failure

_log = structlog.get_logger(__name__)

Trouble = tuple[tuple[int, ...], Failure]
"""Slots, and why they stay without a picture."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a call that was answered. Without a receipt it brought nothing that can be handed out or kept."""

    receipt: Receipt | None
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class _Arrived:
    """One developed picture, and what will be told of it."""

    developed: Developed
    artifact: Artifact
    told: TaskImage
    is_withheld: bool


def make_note(job: ImageJob, choice: Choice, call: Call) -> CallNote:
    """What finishes the call without the job: never a prompt, a picture or a key."""
    fit, target = choice.fit, choice.target
    terms = pricing.terms(target.prices, job, fit)
    return CallNote(
        upstream=target.upstream,
        credential=target.credential,
        slots=call.slots,
        format=job.output_format,
        compression=job.output_compression,
        size=str(fit.made) if fit.made else None,
        other_size=choice.other_size,
        quality=fit.quality,
        # Upstreams make opaque pictures unless they were told otherwise.
        background="transparent" if fit.background == "transparent" else "opaque",
        dropped=fit.dropped,
        prices=target.prices,
        given=terms.given,
        is_called_back=call.callback_url is not None,
    )


@dataclass(frozen=True, slots=True)
class Intake:
    """One call's: of task `task`, noted as `note`."""

    services: Services
    task: str
    call: str
    note: CallNote
    spool: Spool

    async def take(self, made: bridge.Collected) -> Taken:
        """Store what came; whoever took the same call in before keeps the word."""
        arrived: list[_Arrived] = []
        troubles: list[Trouble] = []
        for slot, (got, revised_prompt) in zip(self.note.slots, made.pictures, strict=False):
            developed = got if isinstance(got, Failure) else await self._develop(got)
            if isinstance(developed, Failure):
                troubles.append(((slot,), developed))
            else:
                usage = made.usage if slot == self.note.slots[-1] else None
                arrived.append(self._describe(developed, slot, revised_prompt, usage))
        if missing := self.note.slots[len(made.pictures) :]:
            # Slots that a 2xx left empty are not topped up: the vendor may have billed them.
            few = Failure("body", message=f"{len(made.pictures)} of {len(self.note.slots)} images came")
            troubles.append((missing, few))
        if not arrived:
            return Taken(None, tuple(troubles))
        return await self._store(arrived, troubles, made)

    async def _store(self, arrived: list[_Arrived], troubles: list[Trouble], made: bridge.Collected) -> Taken:
        receipt = self._receipt(arrived, made)
        # The receipt is on its way while the pictures are written: whoever finds it looks whether they are there.
        former, ends = await asyncio.gather(self._keep(receipt), self._put_all(arrived))
        if former is not None:
            # Another process has brought the same pictures, and may have handed them out.
            if await self._is_stored(former):
                await self._drop(arrived)
                return Taken(former, tuple(troubles))
            await self._keep(receipt, former)
        stored: list[_Arrived] = []
        for one, end in zip(arrived, ends, strict=True):
            if isinstance(end, Failure):
                troubles.append(((one.told.slot,), end))
                continue
            stored.append(one)
            if one.is_withheld:
                troubles.append(((one.told.slot,), self._describe_withheld(one)))
        if len(stored) == len(arrived):
            return Taken(receipt, tuple(troubles))
        return Taken(self._receipt(stored, made) if stored else None, tuple(troubles))

    def _receipt(self, arrived: Sequence[_Arrived], made: bridge.Collected) -> Receipt:
        sizes = [one.developed.made for one in arrived]
        usd = pricing.bill(self.note.terms, sizes, usage=made.usage, charged=made.credits)
        handed = [one.told for one in arrived if not one.is_withheld]
        images = (each.model_copy(update={"usd": share(usd, index, len(handed))}) for index, each in enumerate(handed))
        withheld = tuple(one.told for one in arrived if one.is_withheld)
        return Receipt(usd=usd, images=tuple(images), withheld=withheld)

    async def _develop(self, blob: Blob) -> Developed | Failure:
        """One picture's trouble must not take the others, which are paid."""
        try:
            return await self._receiver.develop(blob, self.note, self.spool)
        except CallFailed as failed:
            return failed.failure
        except Exception as error:  # noqa: BLE001 (the same)
            _log.exception("a picture could not be taken in")
            return Failure("collect", message=type(error).__name__)

    async def _put_all(self, arrived: Sequence[_Arrived]) -> list[Failure | None]:
        return await asyncio.gather(*(self._put(one) for one in arrived))

    async def _put(self, one: _Arrived) -> Failure | None:
        try:
            await self._receiver.store(one.developed.picture, one.artifact)
        except CallFailed as failed:
            return failed.failure
        except Exception as error:  # noqa: BLE001 (one picture's trouble must not take the others)
            _log.exception("a picture could not be stored")
            return Failure("collect", message=type(error).__name__)
        return None

    @property
    def _receiver(self) -> Receiver:
        return Receiver(self.services.picture_converter, self.services.artifacts)

    def _describe(
        self, developed: Developed, slot: int, revised_prompt: str | None, usage: TokenUsage | None
    ) -> _Arrived:
        note, made = self.note, developed.made
        artifact = self.services.artifacts.describe(developed.picture)
        is_broken = note.is_broken_by(made)
        if is_broken:
            self.services.drift.note(note.upstream, "made", "size", f"{note.size} became {made}")
        told = TaskImage(
            slot=slot,
            artifact=artifact.id,
            format=artifact.format,
            width=artifact.width,
            height=artifact.height,
            made=str(made) if made != Size(artifact.width, artifact.height) else None,
            bytes=artifact.size,
            created=artifact.created,
            expires=artifact.expires,
            upstream=note.upstream,
            revised_prompt=revised_prompt,
            usage=None if usage is None else asdict(usage),
            quality=note.quality,
            background=note.background,
            dropped=note.dropped,
        )
        return _Arrived(developed, artifact, told, is_broken and note.other_size == "refuse")

    def _describe_withheld(self, one: _Arrived) -> Failure:
        where = link(one.artifact.id, one.artifact.expires, self.services.signing_key)
        return Failure(
            "body", message=f"it made {one.developed.made} in place of {self.note.size}, which is kept at {where}"
        )

    async def _keep(self, receipt: Receipt, former: Receipt | None = None) -> Receipt | None:
        """The receipt that stands instead, if another does. While Redis is away the pictures are all there is."""
        try:
            stands = await self.services.calls.keep_receipt(self.task, self.call, receipt, former)
        except StoreUnavailable:
            return None
        except ResponseError:
            # What cannot be written down here can still be handed out and paid.
            _log.exception("a receipt was refused", call=self.call)
            return None
        return None if stands == receipt else stands

    async def _is_stored(self, receipt: Receipt) -> bool:
        try:
            return await find_stored(self.services, receipt) == receipt
        except StorageFullError:
            # Who cannot look goes by what it has itself.
            return False

    async def _drop(self, arrived: Sequence[_Arrived]) -> None:
        for one in arrived:
            try:
                await self.services.artifacts.delete(one.artifact.id)
            except StorageFullError:
                _log.warning("a picture that was brought twice could not be removed", artifact=one.artifact.id)


async def find_stored(services: Services, receipt: Receipt) -> Receipt | None:
    """What of a receipt is really there; None where nothing is. Raises artifacts.StoreUnavailable."""
    lost = [each.artifact for each in receipt.pictures if await services.artifacts.open(each.artifact) is None]
    return receipt.without(lost) if lost else receipt


def share(usd: int | None, index: int, count: int) -> int | None:
    """One image's part of a bill; the parts add up to the whole."""
    return None if usd is None else usd // count + (index < usd % count)
