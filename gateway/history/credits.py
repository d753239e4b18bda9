"""An operator's correction of what was spent: in the ledger's totals and journal, and in the usage.

Used by the admin API and by the command line. Safe to repeat by its id; never changes a task.
"""

from __future__ import annotations

from gateway.history.history import History
from gateway.history.record import Credit
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import LedgerAnswer, Scope

MOST_USD = 10**15
"""µ$, either way."""


async def make_credit(ledger: Ledger, history: History, credit: Credit, at: int) -> bool:
    """Book a correction at an instant in µs; False when its id was used for another one, and nothing is booked.

    Raises InvalidArgument for an amount of nothing, or an instant whose windows are gone.
    """
    scope = Scope(key=credit.key, team=credit.team)
    if await ledger.adjust(credit.id, scope, credit.usd, credit.reason, at) is LedgerAnswer.CONFLICT:
        return False
    await history.credit(credit, at)
    return True
