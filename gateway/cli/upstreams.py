"""`imagegate upstreams`: each credential's state and its reset; an upstream's counted drift, and its pause.

Works on the store itself, which all gateways share. Sends nothing to a vendor.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from gateway.cli import output, pauses
from gateway.cli.display import Column, print_json, print_rows
from gateway.cli.options import refuse_before_command
from gateway.cli.store import AsJson, DataDir, OpenedStore, cli_actor, with_store
from gateway.dollars import show_usd
from gateway.health.condition import show_state
from gateway.operations.answers import Listing
from gateway.operations.pauses import ActivePause, list_pauses, name_upstream
from gateway.operations.upstreams import UpstreamState, clear_drift, list_upstreams, reset_upstream

app = typer.Typer(invoke_without_command=True)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The upstream's name in the catalogue.", show_default=False)]

_COLUMNS = (
    Column("upstream"),
    Column("state"),
    Column("time left", is_number=True),
    Column("in flight", is_number=True),
    Column("presumed $ in 1 h", is_number=True, is_detail=True),
    Column("balance", is_number=True),
    Column("checked", is_detail=True, is_text=True),
    Column("median seconds"),
    Column("drift", is_detail=True, is_text=True),
)


@app.callback()
def upstreams(
    ctx: typer.Context,
    reset: Annotated[str | None, typer.Option(help="Use this credential again, named as in the table.")] = None,
    clear: Annotated[
        str | None, typer.Option("--clear-drift", help="Delete the counts of this upstream's drift from the catalogue.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the state of each upstream's credentials.

    A state with an end has its time left. The presumed dollars were charged for calls whose outcome is not known. The
    balance is in the vendor's own unit. The medians are of good calls, by quality and resolution. The drift counts,
    in 90 days, where the upstream was not as its entry in the catalogue says: `made size 3` is three pictures of
    another size than promised, `refused n 2` two refusals of an `n` that the entry allows; `other` is a parameter that
    it did not name.

    \b
    imagegate upstreams
    imagegate upstreams pause UPSTREAM --for 2h
    imagegate upstreams resume UPSTREAM
    imagegate upstreams --reset UPSTREAM/CREDENTIAL
    imagegate upstreams --clear-drift UPSTREAM
    """

    if ctx.invoked_subcommand is not None:
        refuse_before_command(ctx)
        return

    async def act(store: OpenedStore) -> tuple[Listing[UpstreamState], list[ActivePause]]:
        if reset is not None:
            await reset_upstream(store, cli_actor(), reset)
        if clear is not None:
            await clear_drift(store, cli_actor(), clear)
        return await list_upstreams(store), (await list_pauses(store)).data

    found, paused = with_store(data_dir, act)
    if as_json:
        print_json(found)
        return
    print_rows(_COLUMNS, [_cells(one) for one in found.data])
    for one in paused:
        output.say(f"Note: {one.describe()}.")


@app.command()
def pause(name: _Name, span: pauses.Span = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Send no new paid call to an upstream. Running calls end, and the results of its tasks are collected.

    New requests go to the next upstream that can serve them.
    """
    pauses.begin(lambda store: name_upstream(store, name), span, data_dir, as_json=as_json)


@app.command()
def resume(name: _Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """End an upstream's pause."""
    pauses.end(lambda store: name_upstream(store, name), data_dir, as_json=as_json)


def _cells(one: UpstreamState) -> tuple[str, ...]:
    most = "" if one.max_concurrent is None else f" of {one.max_concurrent}"
    medians = ", ".join(f"{latency.kind} {latency.seconds:.1f}" for latency in one.latencies)
    checked = "-" if one.checked is None else f"{max(0, round(time.time() - one.checked / 1e6))} s ago"
    return (
        one.label,
        show_state(one.state),
        f"{one.seconds:.0f} s" if one.seconds else "-",
        f"{one.in_flight}{most}",
        show_usd(one.presumed_usd),
        one.balance or "-",
        f"{checked}: {one.trouble}" if one.trouble else checked,
        medians or "-",
        ", ".join(f"{drift.kind} {drift.what} {drift.count}" for drift in one.drift) or "-",
    )
