"""Pauses of everything, of a team and of an upstream: listed, begun and ended. Running work is not touched.

A pause of an upstream stops new paid calls to it. A pause of a team, or of everything, refuses new requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from gateway import errors
from gateway.callers.key_record import Label
from gateway.health.pauses import Pause, PauseStore
from gateway.history.export import show_time
from gateway.operations.answers import AnswerModel, Deleted, Instant, Listing
from gateway.operations.changes import Actor, record_change
from gateway.operations.stores import Stores
from gateway.operations.upstreams import check_upstream

LONGEST_S = 366 * 86_400
"""The longest pause with an end, in seconds."""

_TEAM: TypeAdapter[str] = TypeAdapter(Label)


class ActivePause(AnswerModel):
    """A pause that applies now."""

    scope: str = Field(description="`everything`, `team:NAME` or `upstream:NAME`.")
    since: Instant
    until: Instant | None = Field(description="When it ends by itself; null: only when an operator ends it.")

    @classmethod
    def of(cls, pause: Pause) -> ActivePause:
        return cls(scope=pause.scope, since=pause.since, until=pause.until)

    def describe(self) -> str:
        """The pause as a sentence without its full stop, for a command."""
        return f"{self.scope} is paused since {show_second(self.since)}, until {self.show_end()}"

    def show_end(self) -> str:
        """The end of the pause, for a command."""
        return "it is resumed" if self.until is None else show_second(self.until)


def name_team(team: str) -> str:
    """Return the scope of a team, which need not exist. Raises InvalidValue for a text that no team's name can be."""
    try:
        return f"team:{_TEAM.validate_python(team)}"
    except ValidationError as error:
        raise errors.InvalidValue("`team` must be 1 to 128 bytes of plain text.", param="team") from error


def name_upstream(stores: Stores, name: str) -> str:
    """Return the scope of an upstream. Raises UpstreamNotFound for a name that the catalogue does not have."""
    check_upstream(stores, name, "upstream")
    return f"upstream:{name}"


async def list_pauses(stores: Stores) -> Listing[ActivePause]:
    """Return the present pauses: everything first, then teams and upstreams by name."""
    return Listing[ActivePause](data=[ActivePause.of(one) for one in await PauseStore(stores.redis).list()])


async def begin_pause(stores: Stores, actor: Actor, scope: str, seconds: int | None = None) -> ActivePause:
    """Pause a scope for `seconds` from now, or without an end, and log the change. Returns the pause.

    A scope that is paused already gets the new end.
    """
    before, after = await PauseStore(stores.redis).put(scope, seconds)
    await record_change(stores, actor, *_name_change(scope, "pause"), before=_show(before), after=_show(after))
    return ActivePause.of(after)


async def end_pause(stores: Stores, actor: Actor, scope: str) -> Deleted:
    """End the pause of a scope, and log the change. A scope that is not paused changes nothing, and logs nothing."""
    if (before := await PauseStore(stores.redis).remove(scope)) is not None:
        await record_change(stores, actor, *_name_change(scope, "resume"), before=_show(before))
    return Deleted(id=scope)


def _name_change(scope: str, verb: str) -> tuple[str, str]:
    """The action and the subject in the log of changes: an upstream's subject is its name, as for its other actions."""
    kind, _, name = scope.partition(":")
    return f"{kind}.{verb}", name if kind == "upstream" else scope


def _show(pause: Pause | None) -> Mapping[str, Any] | None:
    if pause is None:
        return None
    return {"since": show_time(pause.since), "until": None if pause.until is None else show_time(pause.until)}


def show_second(at: int) -> str:
    """Return an instant in µs as ISO 8601 in UTC, to the second."""
    return f"{show_time(at)[:19]}Z"
