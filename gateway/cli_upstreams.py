"""`imagegate upstreams`: how each credential is, as all gateways over one store know it, and a fresh start for one.

Reads the store itself; sends nothing to any vendor.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from gateway.cli_store import AsJson, Column, DataDir, OpenedStore, cli_actor, print_rows, with_store
from gateway.condition import Condition
from gateway.document import Credential, Document, Upstream
from gateway.money import show_usd
from gateway.store.targets import TargetStore, make_caps

_COLUMNS = (
    Column("upstream"),
    Column("state"),
    Column("for", is_number=True),
    Column("in flight", is_number=True),
    Column("presumed/h", is_number=True),
    Column("balance", is_number=True),
    Column("checked"),
    Column("median s"),
)

Found = dict[str, tuple[Upstream, Credential, Condition]]


def upstreams(
    reset: Annotated[str | None, typer.Option(help="Use this one again, named as in the table.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show how each upstream's credentials are: state, calls under way, balance, medians.

    \b
    imagegate upstreams
    imagegate upstreams --reset apiany/main
    """

    async def look(store: OpenedStore) -> Found:
        targets, known = TargetStore(store.batcher), _list_credentials(store.document)
        if reset is not None:
            if reset not in known:
                raise typer.BadParameter(
                    f"there is none of this name; there are {', '.join(known)}", param_hint="--reset"
                )
            await targets.reset(reset)
            await store.changes.write(cli_actor(), "upstream.reset", reset, None, None)
        return {label: (*known[label], one) for label, one in (await targets.look(list(known))).items()}

    found = with_store(data_dir, look)
    if as_json:
        facts = [_as_json(label, *one) for label, one in found.items()]
        typer.echo(TypeAdapter(list[dict[str, Any]]).dump_json(facts).decode())
        return
    print_rows(_COLUMNS, [_cells(label, *one) for label, one in found.items()])


def _list_credentials(document: Document) -> dict[str, tuple[Upstream, Credential]]:
    return {
        f"{name}/{credential.name}": (upstream, credential)
        for name, upstream in document.upstreams.items()
        for credential in upstream.credentials
    }


def _describe(upstream: Upstream, credential: Credential, one: Condition) -> tuple[str, float]:
    caps = make_caps(credential, upstream.health)
    return one.describe(has_floor=caps.has_floor, brake=caps.brake)


def _cells(label: str, upstream: Upstream, credential: Credential, one: Condition) -> tuple[str, ...]:
    state, seconds = _describe(upstream, credential, one)
    most = "" if credential.max_concurrent is None else f" of {credential.max_concurrent}"
    medians = ", ".join(f"{kind} {latency.median:.1f}" for kind, latency in sorted(one.latencies.items()))
    checked = "-" if one.checked is None else f"{max(0, round(time.time() - one.checked / 1e6))} s ago"
    return (
        label,
        state,
        f"{seconds:.0f} s" if seconds else "-",
        f"{one.in_flight}{most}",
        show_usd(one.presumed),
        one.balance or "-",
        f"{checked}: {one.trouble}" if one.trouble else checked,
        medians or "-",
    )


def _as_json(label: str, upstream: Upstream, credential: Credential, one: Condition) -> dict[str, Any]:
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
    }
