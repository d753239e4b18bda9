"""`imagegate limits …`: what a key, a team or everyone may spend and ask for, in the store itself.

Each change is written into the log of changes, and counts from the next request on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from gateway.cli import options
from gateway.cli.store import AsJson, Column, DataDir, OpenedStore, cli_actor, print_rows, with_store
from gateway.money.ledger_results import Scope, Standing
from gateway.money.limits import DOLLARS, LIMITS, describe_limits, name_scope, set_limits, show_limit

app = typer.Typer(help="Set and show what keys, teams and everyone may spend.", no_args_is_help=True)

_COLUMNS = (Column("scope"), Column("limit"), *(Column(name, is_number=True) for name in ("at most", "used", "left")))


@app.command(name="set")
def set_(  # noqa: PLR0913 (each option is a parameter, read from the context)
    ctx: typer.Context,
    key: options.OfKey = None,
    team: options.OfTeam = None,
    is_everyone: options.OfEveryone = False,
    usd_total: options.UsdTotal = None,
    usd_month: options.UsdMonth = None,
    usd_week: options.UsdWeek = None,
    usd_day: options.UsdDay = None,
    images_month: options.ImagesMonth = None,
    images_day: options.ImagesDay = None,
    images_minute: options.ImagesMinute = None,
    requests_minute: options.RequestsMinute = None,
    concurrent_requests: options.Concurrent = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set limits of a key, a team or everyone. Those that are not named stay as they are.

    \b
    imagegate limits set --team design --usd-month 200 --images-per-minute 20
    """
    scope = options.read_scope(key, team, is_everyone=is_everyone)
    limits = options.read_limits(ctx.params)
    if not limits:
        raise typer.BadParameter("name at least one limit, such as --usd-month 20")
    _change(scope, limits, data_dir, as_json=as_json)


@app.command()
def unset(
    limit: Annotated[list[str], typer.Argument(metavar="LIMIT...", help="Its option's name, such as usd-month.")],
    key: options.OfKey = None,
    team: options.OfTeam = None,
    is_everyone: options.OfEveryone = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take limits away.

    \b
    imagegate limits unset --team design usd-month images-per-minute
    """
    scope = options.read_scope(key, team, is_everyone=is_everyone)
    names = {options.option_of(name).removeprefix("--"): name for name in LIMITS} | {name: name for name in LIMITS}
    if wrong := [name for name in limit if name not in names]:
        there = ", ".join(options.option_of(name).removeprefix("--") for name in LIMITS)
        raise typer.BadParameter(f"{wrong[0]!r} is no limit; there are {there}", param_hint="LIMIT")
    _change(scope, {names[name]: None for name in limit}, data_dir, as_json=as_json)


@app.command()
def show(
    key: options.OfKey = None,
    team: options.OfTeam = None,
    is_everyone: options.OfEveryone = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show limits and what is left of them. Of a key: its own, its team's and everyone's, which all hold for it.

    \b
    imagegate limits show --key key_01k…
    """
    scope = options.read_scope(key, team, is_everyone=is_everyone)

    async def look(store: OpenedStore) -> tuple[Standing, ...]:
        found = (await store.keys.show(scope.key)).team or "" if scope.key else scope.team
        return (await store.ledger.look(key=scope.key, team=found)).limits

    standings = with_store(data_dir, look)
    if as_json:
        typer.echo(TypeAdapter(list[dict[str, Any]]).dump_json([_as_json(one) for one in standings]).decode())
        return
    print_rows([*_COLUMNS, Column("resets")], [_cells(one) for one in standings])


def _change(scope: Scope, limits: Mapping[str, int | None], data_dir: Path | None, *, as_json: bool) -> None:
    async def act(store: OpenedStore) -> dict[str, int]:
        if scope.key:
            await store.keys.show(scope.key)
        before = await store.ledger.limits_of(scope)
        await set_limits(store.ledger, scope, limits)
        after = await store.ledger.limits_of(scope)
        await store.changes.write(
            cli_actor(), "limits.set", name_scope(scope), describe_limits(before), describe_limits(after)
        )
        return after

    after = with_store(data_dir, act)
    if as_json:
        typer.echo(TypeAdapter(dict[str, Any]).dump_json(describe_limits(after)).decode())
        return
    rows = [(name_scope(scope), name, show_limit(name, after[name])) for name in LIMITS if name in after]
    print_rows(_COLUMNS[:3], rows)


def _cells(one: Standing) -> tuple[str, ...]:
    amounts = (show_limit(one.limit, amount) for amount in (one.ceiling, one.used, one.left))
    return (one.scope, one.limit, *amounts, _at(one.resets))


def _as_json(one: Standing) -> dict[str, Any]:
    amounts = {"limit": one.ceiling, "used": one.used, "left": one.left}
    is_money = one.limit in DOLLARS
    shown = {name: show_limit(one.limit, amount) if is_money else amount for name, amount in amounts.items()}
    return {"scope": one.scope, "name": one.limit, **shown, "resets": _at(one.resets) if one.resets else None}


def _at(micro: int | None) -> str:
    return "-" if micro is None else f"{datetime.fromtimestamp(micro // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
