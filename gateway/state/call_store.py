"""Paid calls as other processes know them: the note that `mark_sent` wrote, and the evidence that came since.

Written by whoever works on a call, read by whoever finishes it in a dead worker's place. Decides nothing: what is kept
here is evidence, taken from anybody at any time, and first come it stands.
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
from gateway.jobs.job import Format, FoundImage, Quality, Ticket, TokenUsage, UpstreamAnswer
from gateway.jobs.sizes import Size, parse_size
from gateway.state.task_store import Lean, TaskImage
from gateway.store.command_queue import CommandQueue
from gateway.store.lua import join_scripts, read_sources


class CallNote(Lean):
    """What a call is for, and how its pictures are to be handed out and billed.

    `size` is the one promised, None where only the upstream knew. `prices` are those that held when it was sent, and
    `given` the µ$ of what it was given. `is_called_back`: the vendor was asked to tell of its end.
    """

    upstream: str
    credential: str
    slots: tuple[int, ...]
    format: Format = "png"
    compression: int | None = None
    size: str | None = None
    other_size: OtherSize = "tell"
    quality: Quality | None = None
    background: Literal["opaque", "transparent"] = "opaque"
    dropped: tuple[str, ...] = ()
    prices: Prices | None = None
    given: Decimal = Decimal(0)
    is_called_back: bool = False

    @property
    def target(self) -> str:
        return f"{self.upstream}/{self.credential}"

    @property
    def terms(self) -> Terms:
        return Terms(self.prices, self.quality, self.given)

    @property
    def promised(self) -> Size | None:
        return parse_size(self.size) if self.size else None

    def is_broken_by(self, made: Size) -> bool:
        """Whether a picture of that size is another than was promised."""
        return self.size is not None and str(made) != self.size


class Link(Lean):
    url: str
    revised_prompt: str | None = None


class Links(Lean):
    """An answer whose pictures are links: whoever has them downloads them. `usage` and `credits` are as it told."""

    images: tuple[Link, ...]
    usage: TokenUsage | None = None
    credits: Decimal | None = None

    @classmethod
    def of(cls, answer: UpstreamAnswer) -> Links | None:
        """None where the answer brought bytes, which only its own process has."""
        links = [Link(url=one.url, revised_prompt=one.revised_prompt) for one in answer.images if one.url]
        if not links or len(links) < len(answer.images):
            return None
        return cls(images=tuple(links), usage=answer.usage, credits=answer.credits)

    def to_answer(self) -> UpstreamAnswer:
        found = (FoundImage(url=one.url, revised_prompt=one.revised_prompt) for one in self.images)
        return UpstreamAnswer(tuple(found), self.usage, self.credits)


class Receipt(Lean):
    """What a call brought, and what it is posted at; written while its pictures are stored, before the call is posted.

    `usd` is µ$, None where no price is known. Withheld pictures are of a size that nobody wants: they are paid for and
    kept, but not handed out.
    """

    usd: int | None
    images: tuple[TaskImage, ...]
    withheld: tuple[TaskImage, ...] = ()

    @property
    def pictures(self) -> tuple[TaskImage, ...]:
        """All that is paid for, by slot."""
        return tuple(sorted((*self.images, *self.withheld), key=lambda each: each.slot))

    @property
    def sizes(self) -> list[Size]:
        """In which the upstream made them."""
        return [size for each in self.pictures if (size := parse_size(each.made or each.size))]

    def without(self, lost: Collection[str]) -> Receipt | None:
        """The receipt without those artifacts, charged for what is left; None where nothing is."""
        images = tuple(each for each in self.images if each.artifact not in lost)
        withheld = tuple(each for each in self.withheld if each.artifact not in lost)
        if not images and not withheld:
            return None
        gone = sum(each.usd or 0 for each in self.images if each.artifact in lost)
        usd = None if self.usd is None else self.usd - gone
        return Receipt(usd=usd, images=images, withheld=withheld)


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call as other processes know it; `error` is a PublicError's facts. What is None never came."""

    id: str
    task: str
    note: CallNote | None = None
    ticket: Ticket | None = None
    links: Links | None = None
    receipt: Receipt | None = None
    error: dict[str, Any] | None = None

    @property
    def is_collectable(self) -> bool:
        """Whether a process that never sent it can bring its pictures."""
        return self.note is not None and self.error is None and bool(self.ticket or self.links or self.receipt)


_WORDS = 8


class Binding(StrEnum):
    """How it ended to give a ticket to a call."""

    BOUND = "bound"
    OTHER = "other"
    """The call has another ticket, which stands."""
    TAKEN = "taken"
    """It is another call's ticket, which stands."""
    UNKNOWN = "unknown"
    """There is no such call."""


@dataclass(frozen=True, slots=True)
class Bound:
    """`stands` is what stands instead: the call's own ticket, or the task and call that have this one."""

    binding: Binding
    stands: tuple[str, ...] = ()


class CallStore:
    """Every method may raise StoreUnavailable.

    A vendor's `revised_prompt` is as good as the prompt: it is kept only where the operator lets prompts be kept.
    """

    def __init__(self, command_queue: CommandQueue, *, keeps_prompts: bool = False) -> None:
        self._command_queue = command_queue
        self._scripts = join_scripts(read_sources("ledger"))
        self._hidden: Any = None if keeps_prompts else {"images": {"__all__": {"revised_prompt"}}}

    async def bind(self, task: str, call: str, upstream: str, credential: str, ticket: Ticket) -> Bound:
        """Evidence that the vendor gave this ticket for the call. `poll_path` may be "" where nobody told it."""
        answer = await self._run("ticket", task, call, upstream, credential, ticket.id, ticket.poll_path)
        return Bound(Binding(answer[0]), tuple(answer[1:]))

    async def keep_links(self, task: str, call: str, links: Links) -> None:
        await self._run("keep", task, call, "links", self._say(links), "")

    async def keep_receipt(self, task: str, call: str, receipt: Receipt, former: Receipt | None = None) -> Receipt:
        """Write down what a call brought; answers the receipt that stands, which is the first.

        `former` is one that turned out to be worth nothing, and gives way.
        """
        words = ("receipt", self._say(receipt), self._say(former) if former else "")
        answer = await self._run("keep", task, call, *words)
        return Receipt.model_validate_json(answer[1]) if answer[0] == "other" else receipt

    async def keep_error(self, task: str, call: str, error: dict[str, Any]) -> None:
        """Why a call brought nothing, as its caller is to hear it."""
        await self._run("keep", task, call, "error", json.dumps(error), "")

    async def read(self, calls: Sequence[str]) -> dict[str, CallRecord]:
        """What is known of some calls, by id; those of which nothing is kept are left out."""
        if not calls:
            return {}
        answer = await self._run("calls", ",".join(calls))
        return {row[0]: _read_call(*row) for row in _rows(answer[1:])}

    def _say(self, part: Links | Receipt) -> str:
        return part.model_dump_json(exclude_defaults=True, exclude=self._hidden)

    async def _run(self, name: str, *arguments: str) -> list[str]:
        return await self._command_queue.run(self._scripts[name], "", *arguments)


def say_note(note: CallNote) -> str:
    """A note as `mark_sent` takes it."""
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
