"""An operator's correction of spending: in the ledger's totals and journal, and in the usage.

Within a day it can be repeated with the same id. It never changes a task.
"""

from __future__ import annotations

from gateway.history.history import History
from gateway.history.record import Credit
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import LedgerAnswer, Scope

MOST_USD = 10**15
"""The largest correction in µ$, up or down."""


async def make_credit(ledger: Ledger, history: History, credit: Credit, at: int) -> bool:
    """Book a correction in the ledger and the usage, at the instant `at` in µs; the amount is in µ$.

    Returns False, and books nothing, when another correction has its id. Raises InvalidArgument for an amount of 0, or
    an instant whose windows have expired. Raises StoreUnavailable: then repeat it with the same id within a day.
    """
    scope = Scope(key=credit.key, team=credit.team)
    if await ledger.adjust(credit.id, scope, credit.usd, credit.reason, at) is LedgerAnswer.CONFLICT:
        return False
    await history.credit(credit, at)
    return True
