"""`imagegate credit` and `holds`: money outside of requests, in the store itself.

A credit is in the ledger's journal and in the log of changes.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from gateway.cli import options
from gateway.cli.display import Column, print_json, print_rows
from gateway.cli.store import AsJson, DataDir, OpenedStore, cli_actor, remark_on_team, with_store
from gateway.dollars import parse_usd, show_usd
from gateway.operations.answers import Listing
from gateway.operations.money import Correction, LiveHold, MadeCredit, list_holds, make_credit

_HOLDS = ("task", "key", "team", "opened", "images", "usd held", "calls")
_NUMBERS = {"images", "usd held"}


def _read_usd(text: str) -> int:
    try:
        return parse_usd(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def credit(  # noqa: PLR0913 (each option is a parameter)
    usd: Annotated[int, typer.Option(parser=_read_usd, metavar="USD", help="Added to the spending; -1.50 gives back.")],
    reason: Annotated[str, typer.Option(help="Why, for readers of the journal.")],
    key: options.OfKey = None,
    team: options.OfTeam = None,
    is_everyone: options.OfEveryone = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Correct past spending: of a key, of a team, or of everyone. It counts at once.

    A credit to a key also counts for its team and for everyone, one to a team for everyone.

    \b
    imagegate credit --key key_01k… --usd -0.03 --reason "the picture never came"
    """
    wanted = Correction(options.read_scope(key, team, is_everyone=is_everyone), usd, reason)

    async def act(store: OpenedStore) -> MadeCredit:
        await remark_on_team(store, team)
        return await make_credit(store, cli_actor(), wanted)

    made = with_store(data_dir, act)
    if as_json:
        print_json(made)
        return
    direction = "given back to" if usd < 0 else "charged to"
    typer.echo(f"${show_usd(abs(usd))} {direction} {made.scope} ({made.id}).")


def holds(
    most: Annotated[int, typer.Option(min=1, max=10_000, help="How many to show.")] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the amounts that tasks hold at this moment, oldest first.

    An ended task is in the list while the outcome of one of its calls is not known.
    """

    async def read(store: OpenedStore) -> tuple[Listing[LiveHold], list[str]]:
        found = await list_holds(store, most)
        return found, [store.calendar.show_instant(one.opened) for one in found.data]

    found, times = with_store(data_dir, read)
    if as_json:
        print_json(found)
        return
    rows = [_describe_hold(one, when) for one, when in zip(found.data, times, strict=True)]
    print_rows([Column(name, name in _NUMBERS, name == "team") for name in _HOLDS], rows)


def _describe_hold(one: LiveHold, opened: str) -> tuple[str, ...]:
    states = ", ".join(f"{number} {state}" for state, number in Counter(call.state for call in one.calls).items())
    return (one.task, one.key, one.team or "-", opened, str(one.images), show_usd(one.usd_held), states or "none yet")
