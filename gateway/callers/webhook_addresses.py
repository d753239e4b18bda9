"""The check of webhook addresses by the catalogue's rules, when a key or a request names one.

The check opens nothing; each delivery checks the address again.
"""

from __future__ import annotations

from gateway.catalogue.document import Webhooks
from gateway.net.fetcher import Fetcher, FetchFailed, FetchPolicy, FetchRefused


def open_fetcher(webhooks: Webhooks) -> Fetcher:
    """Make the fetcher for webhooks. It takes no byte of an answer's body."""
    return Fetcher(FetchPolicy(0, webhooks.timeout, webhooks.timeout, frozenset(webhooks.origins)))


async def find_fault(fetcher: Fetcher, url: str) -> str | None:
    """The reason why the gateway would not send to an address now; None if it would. Looks up the address's host."""
    try:
        await fetcher.check(url)
    except FetchRefused as refused:
        return refused.reason
    except FetchFailed as failed:
        return str(failed)
    return None
