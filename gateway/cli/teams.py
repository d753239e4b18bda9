"""`imagegate teams`: every team with its spending; a team's pause and its end. Works on the store itself."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli import pauses
from gateway.cli.display import Column, print_json, print_rows
from gateway.cli.options import refuse_before_command
from gateway.cli.store import AsJson, DataDir, with_store
from gateway.dollars import show_usd
from gateway.operations.pauses import name_team
from gateway.operations.teams import Team, list_teams

app = typer.Typer(invoke_without_command=True)

_WINDOWS = ("total", "month", "week", "day")
_COLUMNS = (
    Column("team"),
    Column("keys", is_number=True),
    *(Column(f"usd {window}", is_number=True) for window in _WINDOWS),
    Column("paused until"),
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The team.", show_default=False)]


@app.callback()
def teams(ctx: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show every team that a key, a limit or a pause names, and its spending.

    \b
    imagegate teams
    imagegate teams pause NAME --for 2h
    imagegate teams resume NAME
    """
    if ctx.invoked_subcommand is not None:
        refuse_before_command(ctx)
        return
    found = with_store(data_dir, list_teams)
    if as_json:
        print_json(found)
        return
    print_rows(_COLUMNS, [_describe(one) for one in found.data])


@app.command()
def pause(name: _Name, span: pauses.Span = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Refuse new paid requests of a team's keys. Running work ends, and its pictures are delivered."""
    pauses.begin(lambda _: name_team(name), span, data_dir, as_json=as_json, team=name)


@app.command()
def resume(name: _Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """End a team's pause."""
    pauses.end(lambda _: name_team(name), data_dir, as_json=as_json)


def _describe(one: Team) -> tuple[str, ...]:
    spent = {each.window: each.usd_posted + each.usd_presumed for each in one.spent}
    until = "-" if one.pause is None else one.pause.show_end()
    return (one.name, str(one.keys), *(show_usd(spent[window]) for window in _WINDOWS), until)
