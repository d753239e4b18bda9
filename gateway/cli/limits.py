"""`imagegate limits …`: the limits of a key, a team or everyone, in the store itself.

The log of changes has each change. A change counts from the next request on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import options
from gateway.cli.display import Column, print_json, print_rows
from gateway.cli.store import AsJson, DataDir, OpenedStore, cli_actor, remark_on_team, with_store
from gateway.money.ledger_results import Scope
from gateway.money.limits import LIMITS
from gateway.operations.limits import LimitStanding, ScopeLimits, change_limits, show_limits

app = typer.Typer(help="Set and show the limits of keys, teams and everyone.", no_args_is_help=True)

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
    """Set limits of a key, a team or everyone. The other limits stay as they are.

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
    """Remove limits of a key, a team or everyone. The other limits stay as they are.

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
    """Show each limit, its use and the amount left. A key also shows the limits of its team and of everyone.

    A team also shows those of everyone: all of them apply.

    \b
    imagegate limits show --key key_01k…
    """
    scope = options.read_scope(key, team, is_everyone=is_everyone)

    async def read(store: OpenedStore) -> ScopeLimits:
        await remark_on_team(store, scope.team)
        return await show_limits(store, scope)

    found = with_store(data_dir, read)
    if as_json:
        print_json(found)
        return
    print_rows([*_COLUMNS, Column("resets")], [_cells(one) for one in found.standing])


def _change(scope: Scope, limits: Mapping[str, int | None], data_dir: Path | None, *, as_json: bool) -> None:
    async def act(store: OpenedStore) -> ScopeLimits:
        await remark_on_team(store, scope.team, is_made=any(value is not None for value in limits.values()))
        return await change_limits(store, cli_actor(), scope, limits)

    after = with_store(data_dir, act)
    if as_json:
        print_json(after)
        return
    values = after.limits.model_dump(mode="json")
    print_rows(_COLUMNS[:3], [(after.scope, name, str(values[name])) for name in LIMITS if values[name] is not None])


def _cells(one: LimitStanding) -> tuple[str, ...]:
    return (one.scope, one.limit, str(one.ceiling), str(one.used), str(one.left), _show_reset(one.resets))


def _show_reset(micro: int | None) -> str:
    return "-" if micro is None else f"{datetime.fromtimestamp(micro // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
