"""Paid calls as other processes know them: the note that `mark_sent` wrote, and the evidence that came since.

Written by whoever works on a call, read by whoever finishes it in a dead worker's place. Decides nothing: what is kept
here is evidence, taken from anybody at any time, and first come it stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.jobs.job import Ticket
from gateway.state.call_record import CallNote, CallRecord, Links, Receipt
from gateway.store.command_queue import CommandQueue
from gateway.store.lua import join_scripts, read_sources

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
