"""A client of httpx over the gateway's transport, for tests of the transport alone: the gateway has none."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx


def open_client(transport: httpx.AsyncBaseTransport, **options: Any) -> httpx.AsyncClient:
    """A client that takes nothing from the environment, follows no redirect and stores no cookie."""
    cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=()))
    return httpx.AsyncClient(transport=transport, cookies=cookies, trust_env=False, follow_redirects=False, **options)
