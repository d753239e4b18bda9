"""`imagegate upstreams`: how each credential is, as all gateways over one store know it, and a fresh start for one.

Reads the store itself; sends nothing to any vendor.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from gateway.catalogue.document import Credential, Document, Upstream
from gateway.cli.store import AsJson, Column, DataDir, OpenedStore, cli_actor, print_rows, with_store
from gateway.dollars import show_usd
from gateway.health.condition import Condition, State, show_state
from gateway.health.drift import Drift, DriftBook, count_drifts, group_drifts
from gateway.health.target_store import TargetStore, make_caps

_COLUMNS = (
    Column("upstream"),
    Column("state"),
    Column("for", is_number=True),
    Column("in flight", is_number=True),
    Column("presumed/h", is_number=True, is_detail=True),
    Column("balance", is_number=True),
    Column("checked", is_detail=True),
    Column("median s"),
    Column("drift", is_detail=True),
)

FoundTarget = dict[str, tuple[Upstream, Credential, Condition, list[Drift]]]


def upstreams(
    reset: Annotated[str | None, typer.Option(help="Use this one again, named as in the table.")] = None,
    clear: Annotated[
        str | None, typer.Option("--clear-drift", help="Forget where this upstream was not as the catalogue says.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show how each upstream's credentials are: state, calls under way, balance, medians.

    \b
    imagegate upstreams
    imagegate upstreams --reset apiany/main
    imagegate upstreams --clear-drift apiany
    """

    async def look(store: OpenedStore) -> FoundTarget:
        targets, known, book = (
            TargetStore(store.command_queue),
            _list_credentials(store.document),
            DriftBook(store.redis),
        )
        if reset is not None:
            _check_name(reset, known, "--reset")
            await targets.reset(reset)
            await store.changes.write(cli_actor(), "upstream.reset", reset, None, None)
        if clear is not None:
            _check_name(clear, store.document.upstreams, "--clear-drift")
            before = group_drifts(await book.read()).get(clear, [])
            await book.clear(clear)
            await store.changes.write(cli_actor(), "upstream.clear_drift", clear, count_drifts(before), None)
        drifts = group_drifts(await book.read())
        found = await targets.look(list(known))
        return {label: (*known[label][1:], one, drifts.get(known[label][0], [])) for label, one in found.items()}

    found = with_store(data_dir, look)
    if as_json:
        facts = [_as_json(label, *one) for label, one in found.items()]
        typer.echo(TypeAdapter(list[dict[str, Any]]).dump_json(facts).decode())
        return
    print_rows(_COLUMNS, [_cells(label, *one) for label, one in found.items()])


def _check_name(name: str, known: Collection[str], option: str) -> None:
    if name not in known:
        raise typer.BadParameter(f"there is none of this name; there are {', '.join(known)}", param_hint=option)


def _list_credentials(document: Document) -> dict[str, tuple[str, Upstream, Credential]]:
    return {
        f"{name}/{credential.name}": (name, upstream, credential)
        for name, upstream in document.upstreams.items()
        for credential in upstream.credentials
    }


def _describe(upstream: Upstream, credential: Credential, one: Condition) -> tuple[State, float]:
    caps = make_caps(credential, upstream.health)
    return one.describe(has_floor=caps.has_floor, spend_limit=caps.spend_limit)


def _cells(
    label: str, upstream: Upstream, credential: Credential, one: Condition, drifts: list[Drift]
) -> tuple[str, ...]:
    state, seconds = _describe(upstream, credential, one)
    most = "" if credential.max_concurrent is None else f" of {credential.max_concurrent}"
    medians = ", ".join(f"{kind} {latency.median:.1f}" for kind, latency in sorted(one.latencies.items()))
    checked = "-" if one.checked is None else f"{max(0, round(time.time() - one.checked / 1e6))} s ago"
    return (
        label,
        show_state(state),
        f"{seconds:.0f} s" if seconds else "-",
        f"{one.in_flight}{most}",
        show_usd(one.presumed),
        one.balance or "-",
        f"{checked}: {one.trouble}" if one.trouble else checked,
        medians or "-",
        ", ".join(f"{drift.kind} {drift.what} {drift.count}" for drift in drifts) or "-",
    )


def _as_json(
    label: str, upstream: Upstream, credential: Credential, one: Condition, drifts: list[Drift]
) -> dict[str, Any]:
    state, seconds = _describe(upstream, credential, one)
    return {
        "label": label,
        "state": state,
        "seconds": round(seconds, 3),
        "breaker": one.breaker,
        "in_flight": one.in_flight,
        "max_concurrent": credential.max_concurrent,
        "presumed_usd": show_usd(one.presumed),
        "balance": one.balance,
        "min_balance": credential.min_balance,
        "checked": None if one.checked is None else one.checked / 1e6,
        "trouble": one.trouble or None,
        "latencies": {
            kind: {"median": latency.median, "samples": latency.samples} for kind, latency in one.latencies.items()
        },
        "drift": [{"kind": one.kind, "what": one.what, "count": one.count} for one in drifts],
    }
