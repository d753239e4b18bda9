"""The audit of the ledger compares its totals, tasks, journal and indexes. The repair corrects their differences.

After an acceptance the gateways spend again from a store that was emptied or restored, as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from gateway.dollars import show_usd
from gateway.ids import new_id
from gateway.money.audit import DEADLINE_S, Audit, AuditReport, Difference
from gateway.money.ledger import LEDGER_ID, keep, read_kept
from gateway.operations.answers import AnswerModel
from gateway.operations.changes import Actor, record_change
from gateway.operations.stores import Stores
from gateway.store.client import CommandQueue


class LedgerDifference(AnswerModel):
    """One amount, counter or index entry that is not as it must be. Amounts of money are in dollars."""

    kind: str
    place: str = Field(description="Scope and window, or another place in the ledger.")
    name: str
    found: str = Field(description="The value that the ledger uses.")
    tasks: str = Field(description="The sum over the tasks.")
    journal: str = Field(description="The sum over the journal.")
    right: str


class LedgerAudit(AnswerModel):
    """The numbers of tasks, sums and journal entries that were read, and the differences."""

    tasks: int
    sums: int
    entries: int
    differences: list[LedgerDifference]
    spending_closed: bool = Field(
        description="True when the store was emptied or restored: nothing is spent until `imagegate audit --accept`."
    )


class LedgerRepair(LedgerAudit):
    """The result of an audit that was asked to repair differences or to accept the store."""

    repaired: bool = Field(description="True when the differences were repaired.")
    accepted: str | None = Field(description="The new epoch of a store that was accepted.")


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of an audit, the store's epoch, and True if a gateway has marked the store as one that lost data."""

    report: AuditReport
    epoch: str
    is_lost: bool


async def audit_ledger(stores: Stores, known_epoch: str | None = None) -> LedgerAudit:
    """Compare everything that the ledger retains, beside running traffic, and change nothing.

    `known_epoch` is the id of the store's epoch as this process knows it. None is the epoch in the data folder; it is
    unknown for a store that is not the folder's own. Raises StoreUnavailable, LedgerConfused.
    """
    return _describe(stores, await _run(stores, repairs=False), known_epoch)


async def repair_ledger(stores: Stores, actor: Actor, *, repairs: bool, accepts: bool) -> LedgerRepair:
    """Audit the ledger. With `accepts` accept the store as it is first; with `repairs` repair all differences.

    The log of changes gets an acceptance, and a repair of differences. Raises StoreUnavailable, LedgerConfused.
    """
    accepted = await _accept(stores, actor) if accepts else None
    found = await _run(stores, repairs=repairs)
    if repairs and (differences := found.report.differences):
        await record_change(stores, actor, "ledger.repair", "ledger", after={"repaired": len(differences)})
    return LedgerRepair(**dict(_describe(stores, found, None)), repaired=repairs, accepted=accepted)


async def _accept(stores: Stores, actor: Actor) -> str:
    """Begin a new epoch, log it, and return its id. The data folder of an embedded store gets the epoch."""
    epoch = await stores.ledger.accept(new_id("epoch"))
    if (path := _epoch_path(stores)) is not None:
        keep(path, epoch)
    name = epoch.partition(" ")[0]
    await record_change(stores, actor, "ledger.accept", "ledger", after={"epoch": name})
    return name


async def _run(stores: Stores, *, repairs: bool) -> _Found:
    # A connection of its own: one script reads every task of the last day, longer than a request may wait.
    replicas = stores.settings.redis_wait_replicas
    command_queue = CommandQueue(stores.store_url, deadline_s=DEADLINE_S, wait_replicas=replicas)
    try:
        audit = Audit(stores.redis, command_queue)
        return _Found(await audit.run(repairs=repairs), await audit.read_epoch(), await audit.is_lost())
    finally:
        await command_queue.aclose()


def _describe(stores: Stores, found: _Found, known_epoch: str | None) -> LedgerAudit:
    report, epoch = found.report, found.epoch
    if known_epoch is None:
        # Of a Redis that is not the data folder's own, running gateways alone remember the epoch; they mark the store.
        path = _epoch_path(stores)
        known_epoch = "" if path is None else read_kept(path)
    return LedgerAudit(
        tasks=report.tasks,
        sums=report.buckets,
        entries=report.entries,
        differences=[_describe_difference(one) for one in report.differences],
        spending_closed=found.is_lost or known_epoch not in ("", epoch, epoch.partition(" ")[0]),
    )


def _epoch_path(stores: Stores) -> Path | None:
    return stores.settings.data_dir / LEDGER_ID if stores.settings.redis_url is None else None


def _describe_difference(one: Difference) -> LedgerDifference:
    amounts = (one.found, one.tasks, one.journal, one.right)
    found, tasks, journal, right = (_show(one.name, text) for text in amounts)
    return LedgerDifference(
        kind=one.kind, place=one.place, name=one.name, found=found, tasks=tasks, journal=journal, right=right
    )


def _show(name: str, text: str) -> str:
    digits = text.removeprefix("-")
    # A damaged amount need not be a number.
    is_money = name.startswith("usd_") and digits.isascii() and digits.isdigit() and len(digits) < 20
    return show_usd(int(text)) if is_money else text
