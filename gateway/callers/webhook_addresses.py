"""Which addresses of callers may be told of tasks, by the catalogue's rules for webhooks.

Asked by whoever accepts an address: the image routes, the admin API and `imagegate keys`. Being accepted opens nothing:
an address is judged again at each try.
"""

from __future__ import annotations

from gateway.catalogue.document import Webhooks
from gateway.net.fetcher import Fetcher, FetchFailed, FetchPolicy, FetchRefused


def open_fetcher(webhooks: Webhooks) -> Fetcher:
    """What tells them; its answers' bodies are never read."""
    return Fetcher(FetchPolicy(0, webhooks.timeout, webhooks.timeout, frozenset(webhooks.origins)))


async def find_fault(fetcher: Fetcher, url: str) -> str | None:
    """Why an address would not be opened now, and what would be right; None when it would be."""
    try:
        await fetcher.check(url)
    except FetchRefused as refused:
        return refused.reason
    except FetchFailed as failed:
        return str(failed)
    return None
