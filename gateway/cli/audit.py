"""`imagegate audit`: compare the totals, tasks and journal of the ledger, and repair them.

Works on the store itself, also while gateways run. Each repaired amount has an entry in the journal. The log of changes
has each repair of differences and each acceptance.
"""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli import output
from gateway.cli.display import Column, print_json, print_rows
from gateway.cli.options import IsSure
from gateway.cli.store import AsJson, DataDir, OpenedStore, cli_actor, with_store
from gateway.operations.audit import LedgerAudit, LedgerDifference, LedgerRepair, audit_ledger, repair_ledger

EXIT_DIFFERENT = 1

Apply = Annotated[bool, typer.Option("--apply", help="Repair the differences.")]
Accept = Annotated[
    bool, typer.Option("--accept", help="Accept a store that was emptied or restored as it is: spending goes on.")
]

_TEXTS = ("kind", "place", "name")
_COLUMNS = tuple(Column(name, name not in _TEXTS) for name in LedgerDifference.model_fields)


def audit(
    is_repair: Apply = False,
    is_accepted: Accept = False,
    is_sure: IsSure = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare the ledger's totals, tasks and journal; print the differences.

    The exit code is 1 if a difference was not repaired, or if spending is closed.

    \b
    imagegate audit
    imagegate audit --apply
    """

    async def act(store: OpenedStore) -> LedgerAudit:
        if is_accepted:
            question = "Accept the store as it is? What was spent and is not in it counts no more."
            output.confirm(question, is_sure=is_sure)
        if is_repair or is_accepted:
            return await repair_ledger(store, cli_actor(), repairs=is_repair, accepts=is_accepted)
        return await audit_ledger(store)

    done = with_store(data_dir, act)
    if as_json:
        print_json(done)
    else:
        _print_rows(done)
    if done.spending_closed or (done.differences and not is_repair):
        raise typer.Exit(EXIT_DIFFERENT)


def _print_rows(done: LedgerAudit) -> None:
    repair = done if isinstance(done, LedgerRepair) else None
    if done.differences:
        print_rows(_COLUMNS, [[str(cell) for _, cell in one] for one in done.differences])
    summary = f"{done.tasks} tasks, {done.sums} sums, {done.entries} journal entries: "
    if not done.differences:
        summary += "all agree."
    else:
        count = len(done.differences)
        summary += f"{count} {'difference' if count == 1 else 'differences'}" + (
            ", repaired." if repair and repair.repaired else "; --apply repairs them."
        )
    typer.echo(summary, err=True)
    if repair and repair.accepted:
        typer.echo("The store is accepted as it is; gateways spend again within seconds.", err=True)
    if done.spending_closed:
        typer.echo(
            "This store was emptied or restored since the gateway last used it, so nothing is spent. "
            "`imagegate audit --accept` accepts it as it is.",
            err=True,
        )
