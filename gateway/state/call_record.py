"""What another process needs to finish one paid call: its note, made before it is sent, and the evidence that came.

Made by `intake`, kept by `store.calls`, read by `collecting`. Never holds a prompt, a picture or a key. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from gateway.catalogue.document import OtherSize
from gateway.catalogue.pricing import Prices, Terms
from gateway.jobs.job import Format, FoundImage, Quality, Ticket, TokenUsage, UpstreamAnswer
from gateway.jobs.sizes import Size, parse_size
from gateway.state.task_record import Lean, TaskImage


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
