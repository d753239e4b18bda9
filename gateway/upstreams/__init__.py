"""One file a vendor: a dialect written and read. `ADAPTERS` is the list; nothing else in the gateway names a vendor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.jobs.job import Ticket
from gateway.upstreams import apiany
from gateway.upstreams.anyfast import Anyfast
from gateway.upstreams.apiany import Apiany
from gateway.upstreams.base import Adapter
from gateway.upstreams.client import UpstreamClient
from gateway.upstreams.openai import OpenAI

ADAPTERS: dict[str, type[Anyfast] | type[Apiany] | type[OpenAI]] = {
    "anyfast": Anyfast,
    "apiany": Apiany,
    "openai": OpenAI,
}

CALLED_BACK: Mapping[str, Callable[[Any], Ticket | None]] = {"apiany": apiany.read_ticket}
"""The vendors that can be asked to call back, each with what finds the ticket in a callback's body."""

__all__ = ["ADAPTERS", "CALLED_BACK", "Adapter", "UpstreamClient"]
