"""Records of paid calls, from which another process can finish them: the note before the call, and later evidence.

Any process may add evidence at any time. The first evidence of a kind stands, except a receipt whose pictures are gone.
A record never holds a caller's prompt, a picture or a key.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

from gateway.catalogue.document import OtherSize
from gateway.catalogue.pricing import Prices, Terms
from gateway.jobs.job import Format, FoundImage, Quality, Size, Ticket, TokenUsage, UpstreamAnswer, parse_size
from gateway.state.task_store import Lean, TaskImage
from gateway.store.client import CommandQueue
from gateway.store.lua import join_scripts, read_sources


class CallNote(Lean):
    """The facts by which any process can deliver and bill the pictures of a call.

    `size` is the promised one, None if only the upstream chooses; `scaled_to` is the delivered one if the gateway
    scales each picture, else None. `prices` are those at the time of the call, and `given` is the price of its inputs
    in µ$. `held` is the µ$ that it holds, and `believed` the highest bill in µ$ that is believed; both are None if its
    price is unknown. `is_called_back` is True if the vendor has a callback URL for the call's end.
    """

    upstream: str
    credential: str
    slots: tuple[int, ...]
    format: Format = "png"
    compression: int | None = None
    size: str | None = None
    scaled_to: str | None = None
    other_size: OtherSize = "tell"
    quality: Quality | None = None
    background: Literal["opaque", "transparent"] = "opaque"
    dropped: tuple[str, ...] = ()
    prices: Prices | None = None
    given: Decimal = Decimal(0)
    held: int | None = None
    believed: int | None = None
    is_called_back: bool = False

    @property
    def target(self) -> str:
        return f"{self.upstream}/{self.credential}"

    @property
    def terms(self) -> Terms:
        return Terms(self.prices, self.quality, self.given, self.held, self.believed)

    @property
    def promised(self) -> Size | None:
        return parse_size(self.size) if self.size else None

    def size_to_deliver(self, made: Size) -> Size | None:
        """Return the size to which a picture of the size `made` is scaled; None if it is not scaled."""
        if self.scaled_to is not None:
            return parse_size(self.scaled_to)
        return self.promised if self.other_size == "resize" and self.is_broken_by(made) else None

    def is_broken_by(self, made: Size) -> bool:
        """True when a size is promised, and `made` is another."""
        return self.size is not None and str(made) != self.size


class Link(Lean):
    url: str
    revised_prompt: str | None = None


class Links(Lean):
    """An answer with links to its pictures, which any process can download. `usage` and `credits` are the vendor's."""

    images: tuple[Link, ...]
    usage: TokenUsage | None = None
    credits: Decimal | None = None

    @classmethod
    def of(cls, answer: UpstreamAnswer) -> Links | None:
        """Return the links of an answer; None if one of its images has no link, or it has no image."""
        links = [Link(url=one.url, revised_prompt=one.revised_prompt) for one in answer.images if one.url]
        if not links or len(links) < len(answer.images):
            return None
        return cls(images=tuple(links), usage=answer.usage, credits=answer.credits)

    def to_answer(self) -> UpstreamAnswer:
        found = (FoundImage(url=one.url, revised_prompt=one.revised_prompt) for one in self.images)
        return UpstreamAnswer(tuple(found), self.usage, self.credits)


class Receipt(Lean):
    """The pictures and the price of a call. The receipt is stored beside its pictures, before the call is charged.

    `usd` and `disputed` are in µ$. `usd` is None if no price is known; `disputed` is the part of the upstream's bill
    that is not believed and not charged.
    Withheld pictures have an unwanted size: they are paid for and stored, but not delivered.
    """

    usd: int | None
    images: tuple[TaskImage, ...]
    withheld: tuple[TaskImage, ...] = ()
    disputed: int = 0

    @property
    def pictures(self) -> tuple[TaskImage, ...]:
        """All paid pictures, by slot."""
        return tuple(sorted((*self.images, *self.withheld), key=lambda each: each.slot))

    @property
    def sizes(self) -> list[Size]:
        """The sizes that the upstream made, by slot."""
        return [size for each in self.pictures if (size := parse_size(each.made or each.size))]

    def without(self, lost: Collection[str]) -> Receipt | None:
        """Return the receipt without these artifacts and their prices; None if no picture is left."""
        images = tuple(each for each in self.images if each.artifact not in lost)
        withheld = tuple(each for each in self.withheld if each.artifact not in lost)
        if not images and not withheld:
            return None
        gone = sum(each.usd or 0 for each in self.images if each.artifact in lost)
        usd = None if self.usd is None else self.usd - gone
        return self.model_copy(update={"usd": usd, "images": images, "withheld": withheld})


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call as stored; `error` is a PublicError's facts. None stands for a part that is not stored."""

    id: str
    task: str
    note: CallNote | None = None
    ticket: Ticket | None = None
    links: Links | None = None
    receipt: Receipt | None = None
    error: dict[str, Any] | None = None

    @property
    def is_collectable(self) -> bool:
        """True when a process that did not send the call can collect its pictures."""
        return self.note is not None and self.error is None and bool(self.ticket or self.links or self.receipt)


_WORDS = 8


class Binding(StrEnum):
    """The result of binding a ticket to a call."""

    BOUND = "bound"
    OTHER = "other"
    """The call already has another ticket."""
    TAKEN = "taken"
    """The ticket already belongs to another call."""
    UNKNOWN = "unknown"
    """There is no such call."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The result of a binding. `stands` is the earlier one: the call's ticket (OTHER), or the task and call (TAKEN)."""

    binding: Binding
    stands: tuple[str, ...] = ()


class CallStore:
    """The calls in one store. Every method may raise StoreUnavailable.

    A vendor's `revised_prompt` counts as a prompt: it is stored only where the operator allows prompts.
    """

    def __init__(self, command_queue: CommandQueue, *, keeps_prompts: bool = False) -> None:
        self._command_queue = command_queue
        self._scripts = join_scripts(read_sources("ledger"))
        self._hidden: Any = None if keeps_prompts else {"images": {"__all__": {"revised_prompt"}}}

    async def bind(self, task: str, call: str, upstream: str, credential: str, ticket: Ticket) -> Bound:
        """Bind the vendor's ticket to the call. A call has one ticket, and a ticket one call: the first binding stands.

        The ticket's `poll_path` is "" if it is unknown.
        """
        answer = await self._run("ticket", task, call, upstream, credential, ticket.id, ticket.poll_path)
        return Bound(Binding(answer[0]), tuple(answer[1:]))

    async def keep_links(self, task: str, call: str, links: Links) -> None:
        await self._run("keep", task, call, "links", self._encode(links), "")

    async def keep_receipt(self, task: str, call: str, receipt: Receipt, former: Receipt | None = None) -> Receipt:
        """Store a call's receipt, unless it has one; return the receipt that stands.

        A stored receipt that equals `former` is replaced: its pictures are gone. For an unknown call nothing is stored,
        and `receipt` is returned.
        """
        words = ("receipt", self._encode(receipt), self._encode(former) if former else "")
        answer = await self._run("keep", task, call, *words)
        return Receipt.model_validate_json(answer[1]) if answer[0] == "other" else receipt

    async def keep_error(self, task: str, call: str, error: dict[str, Any]) -> None:
        """Store the facts of the caller's error for a call without pictures. The first error stands."""
        await self._run("keep", task, call, "error", json.dumps(error), "")

    async def read(self, calls: Sequence[str]) -> dict[str, CallRecord]:
        """Return the records of some calls, by id; calls without a record are left out."""
        if not calls:
            return {}
        answer = await self._run("calls", ",".join(calls))
        return {row[0]: _read_call(*row) for row in _rows(answer[1:])}

    def _encode(self, part: Links | Receipt) -> str:
        return part.model_dump_json(exclude_defaults=True, exclude=self._hidden)

    async def _run(self, name: str, *arguments: str) -> list[str]:
        return await self._command_queue.run(self._scripts[name], "", *arguments)


def encode_note(note: CallNote) -> str:
    """Return a note as JSON, as the ledger's `mark_sent` takes it."""
    return note.model_dump_json(exclude_defaults=True)


def _read_call(*row: str) -> CallRecord:
    call, task, note, ticket, path, links, receipt, error = row
    return CallRecord(
        id=call,
        task=task,
        note=CallNote.model_validate_json(note) if note else None,
        ticket=Ticket(ticket, path) if ticket else None,
        links=Links.model_validate_json(links) if links else None,
        receipt=Receipt.model_validate_json(receipt) if receipt else None,
        error=json.loads(error) if error else None,
    )


def _rows(words: list[str]) -> Iterator[tuple[str, ...]]:
    return zip(*[iter(words)] * _WORDS, strict=True)
