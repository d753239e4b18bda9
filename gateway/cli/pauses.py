"""`imagegate pause` and `resume`, and the same steps for `imagegate teams` and `imagegate upstreams`.

Works on the store itself: every running gateway sees a change within a second. Ends no running work.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import output
from gateway.cli.display import print_json
from gateway.cli.options import bad_option
from gateway.cli.store import AsJson, DataDir, OpenedStore, cli_actor, remark_on_team, with_store
from gateway.health.condition import EVERYTHING
from gateway.operations.answers import Deleted
from gateway.operations.pauses import LONGEST_S, ActivePause, begin_pause, end_pause, list_pauses
from gateway.store.windows import read_duration

Span = Annotated[
    str | None,
    typer.Option("--for", metavar="SPAN", help="How long, as in 45m, 12h or 2d; default: until it is resumed."),
]
_Everything = Annotated[bool, typer.Option("--everything", help="New paid requests of every key.")]


def pause(
    is_everything: _Everything = False, span: Span = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Refuse new paid requests of every key. Running work ends, and its pictures are delivered.

    Pictures, tasks, health, replays of finished tasks and joins of running ones are served.

    \b
    imagegate pause --everything --for 30m
    imagegate upstreams pause UPSTREAM
    imagegate teams pause TEAM
    """
    _check_everything(is_everything=is_everything)
    begin(lambda _: EVERYTHING, span, data_dir, as_json=as_json)


def resume(is_everything: _Everything = False, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """End the pause of everything. The pauses of teams and of upstreams stay.

    \b
    imagegate resume --everything
    imagegate upstreams resume UPSTREAM
    imagegate teams resume TEAM
    """
    _check_everything(is_everything=is_everything)
    end(lambda _: EVERYTHING, data_dir, as_json=as_json)


def begin(
    find_scope: Callable[[OpenedStore], str], span: str | None, data_dir: Path | None, *, as_json: bool, team: str = ""
) -> None:
    """Pause the scope that `find_scope` returns, for the `span` that was typed, and print the pause.

    Notes on stderr a `team` that no key and no limit names. Raises BadParameter for a wrong span.
    """
    seconds = _read_span(span)

    async def act(store: OpenedStore) -> ActivePause:
        scope = find_scope(store)
        await remark_on_team(store, team)
        return await begin_pause(store, cli_actor(), scope, seconds)

    made = with_store(data_dir, act)
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made.describe()}.")


def end(find_scope: Callable[[OpenedStore], str], data_dir: Path | None, *, as_json: bool) -> None:
    """End the pause of the scope that `find_scope` returns, and print the pauses that remain on stderr."""

    async def act(store: OpenedStore) -> tuple[Deleted, bool, list[ActivePause]]:
        scope = find_scope(store)
        was_paused = any(one.scope == scope for one in (await list_pauses(store)).data)
        return await end_pause(store, cli_actor(), scope), was_paused, (await list_pauses(store)).data

    ended, was_paused, rest = with_store(data_dir, act)
    if as_json:
        print_json(ended)
    else:
        typer.echo(f"{ended.id} is resumed." if was_paused else f"{ended.id} was not paused.")
    for one in rest:
        output.say(f"Note: {one.describe()}.")


def _check_everything(*, is_everything: bool) -> None:
    if not is_everything:
        raise typer.BadParameter(
            "give --everything; `imagegate upstreams pause NAME` and `imagegate teams pause NAME` pause one of them"
        )


def _read_span(text: str | None) -> int | None:
    if text is None:
        return None
    span = read_duration(text)
    seconds = 0 if span is None else round(span.total_seconds())
    if not 0 < seconds <= LONGEST_S:
        raise bad_option("for", f"{text!r} is no time span of a year at most; right is 45m, 12h or 2d")
    return seconds
