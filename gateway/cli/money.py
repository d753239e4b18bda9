"""`imagegate credit`, `holds` and `teams`: money outside of requests, in the store itself.

A credit is written into the ledger's journal and into the log of changes.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from gateway.cli import options
from gateway.cli.store import AsJson, Column, DataDir, OpenedStore, cli_actor, print_rows, with_store
from gateway.dollars import parse_usd, show_usd
from gateway.history.credits import MOST_USD, make_credit
from gateway.history.record import Credit
from gateway.ids import new_id
from gateway.money.ledger_results import Hold, Scope, Spent
from gateway.money.limited import list_limited_teams
from gateway.money.limits import name_scope

_SPANS = ("total", "month", "week", "day")
_HOLDS = ("task", "key", "team", "opened", "images", "usd held", "calls")
_NUMBERS = {"images", "usd held", "keys", *(f"usd {span}" for span in _SPANS)}


def _read_usd(text: str) -> int:
    try:
        usd = parse_usd(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if usd == 0 or abs(usd) > MOST_USD:
        raise typer.BadParameter("a correction is more or less than nothing, as in -0.03")
    return usd


def credit(  # noqa: PLR0913 (each option is a parameter)
    usd: Annotated[
        int, typer.Option(parser=_read_usd, metavar="USD", help="Added to what was spent; -1.50 gives back.")
    ],
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the journal.")],
    key: options.OfKey = None,
    team: options.OfTeam = None,
    is_everyone: options.OfEveryone = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Correct what was spent: of a key and its team, of a team, or of everyone. It counts at once.

    \b
    imagegate credit --key key_01k… --usd -0.03 --reason "the picture never came"
    """
    scope = options.read_scope(key, team, is_everyone=is_everyone)

    async def act(store: OpenedStore) -> Credit:
        whose = Scope(key=scope.key, team=(await store.keys.show(scope.key)).team or "") if scope.key else scope
        made = Credit(id=new_id("change"), key=whose.key, team=whose.team, usd=usd, reason=reason)
        await make_credit(store.ledger, store.history, made, time.time_ns() // 1000)
        after = {"usd": show_usd(usd), "reason": reason}
        await store.changes.write(cli_actor(), "credit.make", name_scope(scope), None, after)
        return made

    made = with_store(data_dir, act)
    if as_json:
        _print_json({"id": made.id, "scope": name_scope(scope), "usd": show_usd(usd), "reason": reason})
        return
    what = "given back to" if usd < 0 else "charged to"
    typer.echo(f"${show_usd(abs(usd))} {what} {name_scope(scope)} ({made.id}).")


def holds(
    most: Annotated[int, typer.Option(min=1, max=10_000, help="How many to show.")] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what running tasks hold at this moment, oldest first; a doubtful one waits for its settlement."""

    async def read(store: OpenedStore) -> tuple[list[Hold], list[str]]:
        found = await store.ledger.holds(most)
        return found, [store.calendar.show_instant(one.opened) for one in found]

    found, times = with_store(data_dir, read)
    rows = [_describe_hold(one, when) for one, when in zip(found, times, strict=True)]
    if as_json:
        _print_json([dict(zip(_HOLDS, row, strict=True)) for row in rows])
        return
    print_rows([Column(name, name in _NUMBERS, name == "team") for name in _HOLDS], rows)


def teams(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show every team that a key or a limit names, and what it has spent."""

    async def read(store: OpenedStore) -> list[tuple[str, ...]]:
        keys = Counter(record.team for record in await store.keys.list() if record.team)
        names = sorted(keys.keys() | await list_limited_teams(store.redis))
        return [(name, str(keys[name]), *_sums(await _spent(store, name))) for name in names]

    rows = with_store(data_dir, read)
    columns = ("team", "keys", *(f"usd {span}" for span in _SPANS))
    if as_json:
        _print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    print_rows([Column(name, name in _NUMBERS) for name in columns], rows)


async def _spent(store: OpenedStore, team: str) -> dict[str, Spent]:
    return {one.window: one for one in (await store.ledger.look(team=team)).spent if one.scope == "team"}


def _sums(spent: dict[str, Spent]) -> list[str]:
    return [show_usd(spent[span].usd_posted + spent[span].usd_presumed) for span in _SPANS]


def _describe_hold(one: Hold, opened: str) -> tuple[str, ...]:
    calls = Counter(call.state.value for call in one.calls)
    states = ", ".join(f"{number} {state}" for state, number in calls.items()) or "none yet"
    return (one.task, one.key, one.team or "-", opened, str(one.images), show_usd(one.usd_held), states)


def _print_json(value: Any) -> None:
    typer.echo(TypeAdapter(Any).dump_json(value).decode())
