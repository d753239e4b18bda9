"""One file a vendor: a dialect written and read. `ADAPTERS` is the list; nothing else in the gateway names a vendor."""

from __future__ import annotations

from gateway.upstreams.anyfast import Anyfast
from gateway.upstreams.apiany import Apiany
from gateway.upstreams.base import Upstream
from gateway.upstreams.line import Line
from gateway.upstreams.openai import OpenAI

ADAPTERS: dict[str, type[Anyfast] | type[Apiany] | type[OpenAI]] = {
    "anyfast": Anyfast,
    "apiany": Apiany,
    "openai": OpenAI,
}

__all__ = ["ADAPTERS", "Line", "Upstream"]
