"""The policy for a call whose outcome nobody knows: presume its price, release it, or hold it for an operator.

The catalogue names the policy of each upstream. This module derives the ledger's state and the charge from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.money.ledger import Ledger
from gateway.money.ledger_results import LedgerAnswer, Policy, Settled

_STATES: Mapping[Policy, LedgerAnswer] = {
    "presume": LedgerAnswer.PRESUMED,
    "release": LedgerAnswer.VOID,
    "hold": LedgerAnswer.HELD,
}


def state_after(policy: Policy) -> LedgerAnswer:
    """Return the ledger's state of a call of unknown outcome after `settle_unknown`.

    Only an operator or later evidence settles a HELD call.
    """
    return _STATES[policy]


def charge_of(policy: Policy, price: int | None) -> int | None:
    """Return the µ$ that a call of unknown outcome costs: with `presume` its price, None if unknown; otherwise 0."""
    return price if policy == "presume" else 0


async def settle_unknown(
    ledger: Ledger, task: str, call: str, fence: int, policy: Policy
) -> Settled | LedgerAnswer | None:
    """Settle a call of unknown outcome by its policy; return the ledger's answer. Raises StoreUnavailable.

    For `hold` it changes nothing and returns HELD."""
    match policy:
        case "presume":
            return await ledger.presume(task, call, fence)
        case "release":
            return await ledger.nack(task, call)
        case "hold":
            return LedgerAnswer.HELD
