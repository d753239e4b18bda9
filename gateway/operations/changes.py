"""The log of changes: each action writes a line with the values before and after, and operators read the lines.

The values hold no secret, and the log hides each text that looks like one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, Field

from gateway.operations.answers import AnswerModel, Instant, Listing
from gateway.operations.stores import Stores
from gateway.operations.time_spans import read_span
from gateway.store.client import StoreUnavailable

State = BaseModel | Mapping[str, Any] | None
"""The state of something before or after a change; None if it did not exist, or does not exist any more."""

SINCE = "30d"
"""The beginning of a list of changes if the operator gives none."""

_NO_LIMIT = 2**62

ChangeReport = Callable[[Mapping[str, str | None], StoreUnavailable | None], None]
"""Takes the facts of a change that was made, and the error that kept it out of the log of changes, or None."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change. The log of changes has the name and the address; `report` is called for each change.

    An `address` of None is a command, or a client on a Unix socket.
    """

    name: str
    report: ChangeReport
    address: str | None = None


class MadeChange(AnswerModel):
    """One change. `before` and `after` have the fields that differ.

    A null in place of one of them means that the subject did not exist before or after, or that the action has none.
    """

    id: str
    time: Instant
    actor: str = Field(description="`admin-token`, `operator:NAME` or `cli:USER`.")
    action: str
    subject: str = Field(description="The thing that changed: a key's id, `team:NAME`, `everyone`, `operator:NAME`.")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str | None


async def record_change(
    stores: Stores, actor: Actor, action: str, subject: str, *, before: State = None, after: State = None
) -> None:
    """Write one change to the log of changes, and call the actor's `report`.

    An unavailable store raises nothing, and `report` gets its error: the change is made already, and its answer may
    hold a secret that is shown once.
    """
    facts = {"actor": actor.name, "action": action, "subject": subject, "address": actor.address}
    was, became = (state.model_dump() if isinstance(state, BaseModel) else state for state in (before, after))
    lost: StoreUnavailable | None = None
    try:
        await stores.changes.write(actor.name, action, subject, was, became, actor.address)
    except StoreUnavailable as error:
        lost = error
    actor.report(facts, lost)


async def list_changes(
    stores: Stores,
    since: str = SINCE,
    subject: str | None = None,
    actor: str | None = None,
    most: int | None = None,
) -> Listing[MadeChange]:
    """Return up to `most` changes since `since`, newest first; None is no bound. Raises InvalidValue for a wrong time.

    A `subject` or an `actor` keeps only the changes that have it.
    """
    first, _ = read_span(stores, since, None)
    found = await stores.changes.read(first, subject, actor, _NO_LIMIT if most is None else most + 1)
    rows = [MadeChange.model_validate(asdict(change)) for change in found[:most]]
    return Listing(data=rows, has_more=len(found) > len(rows))
