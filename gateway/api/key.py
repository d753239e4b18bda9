"""The route of a caller's own key: its rights, its limits and their use, and the amounts it has spent."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from gateway.api.request import CallerDep, ServicesDep
from gateway.dollars import show_usd
from gateway.money import limit_messages
from gateway.money.ledger_results import Spent, Standing
from gateway.money.reservation import ledger_unavailable
from gateway.store.client import StoreUnavailable

HIDDEN = {"demo", "hint", "metadata", "webhook_secret", "webhook_overlap"}
"""Fields of the stored key that its caller does not see."""

router = APIRouter(tags=["key"])


@router.get("/key", summary="This key: its rights, its limits and the amounts it has spent")
async def show_key(services: ServicesDep, caller: CallerDep, response: Response) -> dict[str, Any]:
    """Return the key, the limits of the key and of its team with their use, and the key's spending.

    Dollars are texts with six digits after the point. Raises QuotaStoreUnavailable.
    """
    try:
        standings = await services.ledger.look(caller.key.id, caller.key.team or "")
    except StoreUnavailable as error:
        raise ledger_unavailable() from error
    response.headers.update(limit_messages.rate_headers(limit_messages.rates_of(standings)))
    record = caller.key.model_dump(mode="json", exclude=HIDDEN)
    return {
        "object": "key",
        **record,
        "limits": [_describe_limit(one) for one in standings.limits if one.scope != "everyone"],
        "spent": [_describe_spent(one) for one in standings.spent if one.scope == "key"],
    }


def _describe_limit(one: Standing) -> dict[str, Any]:
    show = show_usd if one.limit.startswith("usd_") else int
    return {
        "limit": one.limit,
        "scope": one.scope,
        "ceiling": show(one.ceiling),
        "used": show(one.used),
        "left": show(one.left),
        "resets": None if one.resets is None else limit_messages.show_instant(one.resets),
    }


def _describe_spent(one: Spent) -> dict[str, Any]:
    return {
        "window": one.window,
        "usd": show_usd(one.usd_posted + one.usd_presumed),
        "usd_held": show_usd(one.usd_held),
        "images": one.images_posted + one.images_presumed,
    }
