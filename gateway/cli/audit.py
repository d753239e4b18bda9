"""`imagegate audit`: whether totals, tasks and journal of the ledger agree, and what to do where they do not.

Works on the store itself, while gateways run. Each repair stands in the journal, each use in the log of changes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter

from gateway.cli.store import AsJson, Column, DataDir, OpenedStore, cli_actor, print_rows, with_store
from gateway.dollars import show_usd
from gateway.ids import new_id
from gateway.money.audit import DEADLINE_S, Audit, AuditReport, Difference
from gateway.money.store_epoch import LEDGER_ID, keep, read_kept
from gateway.store.command_queue import CommandQueue

EXIT_DIFFERENT = 1

Apply = Annotated[bool, typer.Option("--apply", help="Repair what differs.")]
Accept = Annotated[
    bool, typer.Option("--accept", help="Take the store as it is, after it was emptied or put back: spending goes on.")
]

_COLUMNS = (
    *(Column(name) for name in ("kind", "place", "name")),
    *(Column(name, is_number=True) for name in ("found", "tasks", "journal", "right")),
)


@dataclass(frozen=True, slots=True)
class _Done:
    report: AuditReport
    is_lost: bool
    epoch: str


def audit(
    is_repair: Apply = False, is_accepted: Accept = False, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Compare the ledger's totals, tasks and journal; print what differs.

    The exit code is 1 where something differs and was not repaired, or where spending is closed.

    \b
    imagegate audit
    imagegate audit --apply
    """

    async def act(store: OpenedStore) -> _Done:
        path = store.settings.data_dir / LEDGER_ID if store.settings.redis_url is None else None
        epoch = await _accept(store, path) if is_accepted else ""
        # One script reads every task of the last day: longer than a request may wait.
        replicas = store.settings.redis_wait_replicas
        command_queue = CommandQueue(store.url, deadline_s=DEADLINE_S, wait_replicas=replicas)
        try:
            audit = Audit(store.redis, command_queue)
            report = await audit.run(repairs=is_repair)
            # Without a folder of its own the store is known to running gateways alone.
            is_lost = path is not None and read_kept(path) not in {"", await audit.read_epoch()}
        finally:
            await command_queue.aclose()
        if is_repair and report.differences:
            await store.changes.write(
                cli_actor(), "ledger.repair", "ledger", None, {"repaired": len(report.differences)}
            )
        return _Done(report, is_lost, epoch)

    done = with_store(data_dir, act)
    if as_json:
        _print_json(done, is_repair=is_repair)
    else:
        _print_rows(done, is_repair=is_repair)
    if done.is_lost or (done.report.differences and not is_repair):
        raise typer.Exit(EXIT_DIFFERENT)


async def _accept(store: OpenedStore, path: Path | None) -> str:
    epoch = await store.ledger.accept(new_id("epoch"))
    if path is not None:
        keep(path, epoch)
    await store.changes.write(cli_actor(), "ledger.accept", "ledger", None, {"epoch": epoch.partition(" ")[0]})
    return epoch.partition(" ")[0]


def _print_rows(done: _Done, *, is_repair: bool) -> None:
    report = done.report
    if report.differences:
        print_rows(_COLUMNS, [tuple(_shown(one).values()) for one in report.differences])
    said = f"{report.tasks} tasks, {report.buckets} sums, {report.entries} journal entries: "
    if not report.differences:
        said += "all agree."
    else:
        said += f"{len(report.differences)} differences" + (
            ", all repaired." if is_repair else "; --apply repairs them."
        )
    typer.echo(said, err=True)
    if done.epoch:
        typer.echo("The store is accepted as it is; gateways go on spending within seconds.", err=True)
    if done.is_lost:
        typer.echo(
            "This store was emptied or put back since the gateway last used it, so nothing is spent. "
            "`imagegate audit --accept` takes it as it is.",
            err=True,
        )


def _print_json(done: _Done, *, is_repair: bool) -> None:
    report = done.report
    shown: dict[str, object] = {
        "tasks": report.tasks,
        "sums": report.buckets,
        "entries": report.entries,
        "differences": [_shown(one) for one in report.differences],
        "repaired": is_repair,
        "accepted": done.epoch or None,
        "spending_closed": done.is_lost,
    }
    typer.echo(TypeAdapter(dict[str, object]).dump_json(shown).decode())


def _shown(one: Difference) -> dict[str, str]:
    """A difference with amounts of money in dollars."""
    row: dict[str, str] = asdict(one)
    if one.name.startswith("usd_"):
        row |= {name: _dollars(row[name]) for name in ("found", "tasks", "journal", "right")}
    return row


def _dollars(text: str) -> str:
    # What was damaged need not be a number.
    return show_usd(int(text)) if text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() else text
