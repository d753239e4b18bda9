"""The intake of a paid call's pictures: it checks each, converts it to the promised format and size, and stores it.

It stores a receipt before the ledger charges the call; while Redis is unavailable, there is no receipt. Two processes
may store the same pictures: the one whose receipt comes second then removes its own. The intake never charges a call.
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
from gateway.delivery.bridge import Collected
from gateway.dollars import show_usd
from gateway.jobs.job import Call, ImageJob, Size, TokenUsage
from gateway.pictures.picture import NotAPicture, Picture
from gateway.pictures.spool import Blob, Spool, StorageFullError
from gateway.routing.plan import Choice
from gateway.services import Services
from gateway.state.call_store import CallNote, Receipt
from gateway.state.task_store import TaskImage
from gateway.store.client import StoreUnavailable
from gateway.upstreams.verdict import Failure

_log = structlog.get_logger(__name__)

_NOT_STORED = "the gateway could not store it"

SlotFailure = tuple[tuple[int, ...], Failure]
"""Slots, and the failure that left them without a picture."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The result of an answered call. A receipt of None means that no picture of the call is stored.

    `usage` has the upstream's token counts; None if there are none or they are not believed.
    """

    receipt: Receipt | None
    failures: tuple[SlotFailure, ...] = ()
    usage: TokenUsage | None = None


@dataclass(frozen=True, slots=True)
class _Converted:
    """One picture in the format and size to deliver, and the size in which it came."""

    picture: Picture
    made: Size


@dataclass(frozen=True, slots=True)
class _Arrived:
    """One converted picture, with its artifact and the image that the task's record will hold."""

    converted: _Converted
    artifact: Artifact
    image: TaskImage
    is_withheld: bool


def make_note(job: ImageJob, choice: Choice, call: Call, bill_tolerance: float | None = None) -> CallNote:
    """Make the note with which any process can finish the call. It never holds a prompt, a picture or a key.

    A `bill_tolerance` of None is the default for the kind of price.
    """
    fit, target = choice.fit, choice.target
    held = None if choice.quote is None else choice.quote.ceiling * call.n
    terms = pricing.terms(target.prices, job, fit, held=held, tolerance=bill_tolerance)
    return CallNote(
        upstream=target.upstream,
        credential=target.credential,
        slots=call.slots,
        format=job.output_format,
        compression=job.output_compression,
        size=str(fit.made) if fit.made else None,
        scaled_to=str(job.scaled_to) if job.scaled_to else None,
        other_size=choice.other_size,
        quality=fit.sent.quality,
        # Upstreams make opaque pictures unless a transparent one is requested.
        background="transparent" if fit.sent.background == "transparent" else "opaque",
        dropped=fit.dropped,
        prices=target.prices,
        given=terms.given,
        held=terms.held,
        believed=terms.believed,
        is_called_back=call.callback_url is not None,
    )


@dataclass(frozen=True, slots=True)
class Intake:
    """The intake of one call of the task `task`, with its note."""

    services: Services
    task: str
    call: str
    note: CallNote
    spool: Spool

    async def take(self, collected: Collected) -> Taken:
        """Convert and store the pictures, and store their receipt. While Redis is unavailable, no receipt is stored.

        If another process has stored a receipt and its pictures are there, that receipt is returned, and these pictures
        are removed. A picture that cannot be converted or stored is a failure in the result, not an error.
        """
        arrived: list[_Arrived] = []
        failures: list[SlotFailure] = []
        told = self._find_usage(collected)
        for slot, (found, revised_prompt) in zip(self.note.slots, collected.pictures, strict=False):
            converted = found if isinstance(found, Failure) else await self._try_convert(found)
            if isinstance(converted, Failure):
                failures.append(((slot,), converted))
            else:
                usage = told if slot == self.note.slots[-1] else None
                arrived.append(self._describe(converted, slot, revised_prompt, usage))
        if missing := self.note.slots[len(collected.pictures) :]:
            # Slots that a 2xx left empty are not topped up: the vendor may have billed them.
            failures.append((missing, _describe_missing(self.note, len(collected.pictures))))
        if not arrived:
            return Taken(None, tuple(failures), told)
        return await self._store(arrived, failures, collected, told)

    def _find_usage(self, collected: Collected) -> TokenUsage | None:
        usage = collected.usage
        is_believable = usage is not None and pricing.is_believable(self.note.terms, usage, len(self.note.slots))
        return usage if is_believable else None

    async def _store(
        self, arrived: list[_Arrived], failures: list[SlotFailure], collected: Collected, told: TokenUsage | None
    ) -> Taken:
        receipt = self._make_receipt(arrived, collected)
        # The receipt is written while the pictures are: its readers check that they are there.
        keeping = asyncio.ensure_future(self._keep(receipt))
        results = await self._put_all(arrived)
        former = await keeping
        if former is not None:
            # Another process has collected the same pictures, and may have delivered them.
            if await self._is_stored(former):
                await self._remove(arrived)
                return Taken(former, tuple(failures), told)
            await self._keep(receipt, former)
        stored: list[_Arrived] = []
        for one, result in zip(arrived, results, strict=True):
            if isinstance(result, Failure):
                failures.append(((one.image.slot,), result))
                continue
            stored.append(one)
            if one.is_withheld:
                withheld = _describe_withheld(self.note, one.image, self.services.signing_key)
                failures.append(((one.image.slot,), withheld))
        final: Receipt | None = receipt
        if len(stored) < len(arrived):
            final = self._make_receipt(stored, collected) if stored else None
        if final is not None and final.disputed:
            self._log_dispute(final)
        return Taken(final, tuple(failures), told)

    def _make_receipt(self, arrived: Sequence[_Arrived], collected: Collected) -> Receipt:
        sizes = [one.converted.made for one in arrived]
        bill = pricing.bill(self.note.terms, sizes, usage=collected.usage, charged=collected.credits)
        usd = bill.usd
        delivered = [one.image for one in arrived if not one.is_withheld]
        images = [each.model_copy(update={"usd": share(usd, i, len(delivered))}) for i, each in enumerate(delivered)]
        withheld = [one.image for one in arrived if one.is_withheld]
        return Receipt(usd=usd, images=tuple(images), withheld=tuple(withheld), disputed=bill.disputed)

    def _log_dispute(self, receipt: Receipt) -> None:
        _log.error(
            "an upstream's bill is disputed",
            upstream=self.note.target,
            task=self.task,
            call=self.call,
            held_usd=show_usd(self.note.held or 0),
            charged_usd=show_usd(receipt.usd or 0),
            disputed_usd=show_usd(receipt.disputed),
        )

    async def _try_convert(self, blob: Blob) -> _Converted | Failure:
        """Convert one picture. Returns a failure and raises no error, since the other pictures are paid for."""
        try:
            return await self.spool.await_space(lambda: self._convert(blob))
        except NotAPicture as error:
            return Failure("body", message=str(error))
        except (StorageFullError, OSError) as error:
            return _fail_to_store(error)
        except Exception:  # noqa: BLE001 (one picture's failure must not fail the others)
            _log.exception("the gateway could not read a picture")
            return Failure("collect", message="the gateway could not read it")

    async def _convert(self, blob: Blob) -> _Converted:
        """Check one image, and convert it to the format and size to deliver. Raises NotAPicture, StorageFullError."""
        note, converter = self.note, self.services.picture_converter
        picture = await converter.probe(blob, what="the upstream's image")
        made = Size(picture.width, picture.height)
        size = note.size_to_deliver(made)
        if picture.format != note.format or size not in (None, made):
            picture = await converter.convert(
                picture,
                note.format,
                self.spool,
                quality=100 if note.compression is None else note.compression,
                size=(size.width, size.height) if size else None,
            )
        return _Converted(picture, made)

    async def _put_all(self, arrived: Sequence[_Arrived]) -> list[Failure | None]:
        if len(arrived) == 1:
            return [await self._try_put(arrived[0])]
        return await asyncio.gather(*(self._try_put(one) for one in arrived))

    async def _try_put(self, one: _Arrived) -> Failure | None:
        try:
            picture = one.converted.picture
            await self.spool.await_space(lambda: self.services.artifacts.put(picture, one.artifact))
        except (StorageFullError, OSError) as error:
            return _fail_to_store(error)
        except Exception:  # noqa: BLE001 (one picture's failure must not fail the others)
            _log.exception("the gateway could not store a picture")
            return Failure("collect", message=_NOT_STORED)
        return None

    def _describe(
        self, converted: _Converted, slot: int, revised_prompt: str | None, usage: TokenUsage | None
    ) -> _Arrived:
        note, made = self.note, converted.made
        artifact = self.services.artifacts.describe(converted.picture)
        is_broken = note.is_broken_by(made)
        if is_broken:
            self.services.drift.note(note.upstream, "made", "size", f"{note.size} became {made}")
        image = TaskImage(
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
        return _Arrived(converted, artifact, image, is_broken and note.other_size == "refuse")

    async def _keep(self, receipt: Receipt, former: Receipt | None = None) -> Receipt | None:
        """Store the receipt; return another one if it stands in its place, else None.

        Stores none while Redis is unavailable or if the store refuses it.
        """
        try:
            stands = await self.services.calls.keep_receipt(self.task, self.call, receipt, former)
        except StoreUnavailable:
            return None
        except ResponseError:
            # Pictures without a written receipt can still be delivered and paid for.
            _log.exception("the store refused a receipt", call=self.call)
            return None
        return None if stands == receipt else stands

    async def _is_stored(self, receipt: Receipt) -> bool:
        try:
            return await find_stored(self.services, receipt) == receipt
        except StorageFullError:
            # While the storage cannot be read, the pictures of this process count.
            return False

    async def _remove(self, arrived: Sequence[_Arrived]) -> None:
        for one in arrived:
            try:
                await self.services.artifacts.delete(one.artifact.id)
            except StorageFullError:
                _log.warning("the gateway could not remove a duplicate picture", artifact=one.artifact.id)


async def find_stored(services: Services, receipt: Receipt) -> Receipt | None:
    """Return the receipt for those of its pictures that are stored; None if none is. Raises ArtifactsUnavailable."""
    lost = [each.artifact for each in receipt.pictures if await services.artifacts.open(each.artifact) is None]
    return receipt.without(lost) if lost else receipt


def find_shortfall(note: CallNote, receipt: Receipt, signing_key: bytes) -> Failure | None:
    """Return the failure of a call whose receipt delivers fewer images than it has slots; None if it delivers all."""
    if len(receipt.pictures) < len(note.slots):
        return _describe_missing(note, len(receipt.pictures))
    return _describe_withheld(note, receipt.withheld[0], signing_key) if receipt.withheld else None


def share(usd: int | None, index: int, count: int) -> int | None:
    """Return the part of the image `index` (from 0) in a bill of `usd` µ$ for `count` images; None if it is unknown.

    The parts add up to the bill.
    """
    return None if usd is None else usd // count + (index < usd % count)


def _describe_missing(note: CallNote, count: int) -> Failure:
    return Failure("body", message=f"{count} of {len(note.slots)} images came")


def _describe_withheld(note: CallNote, image: TaskImage, signing_key: bytes) -> Failure:
    address = link(image.artifact, image.expires, signing_key)
    made = image.made or image.size
    return Failure("body", message=f"it made {made} in place of {note.size}, which is kept at {address}")


def _fail_to_store(error: Exception) -> Failure:
    # The reason may name the operator's storage.
    _log.error("the gateway could not store a picture", reason=str(error))
    return Failure("collect", message=_NOT_STORED)
