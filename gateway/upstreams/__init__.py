"""One file a vendor: a dialect written and read. `ADAPTERS` is the list; nothing else in the gateway names a vendor."""

from __future__ import annotations

from gateway.upstreams.anyfast import Anyfast
from gateway.upstreams.apiany import Apiany
from gateway.upstreams.base import Upstream
from gateway.upstreams.line import Line

ADAPTERS: dict[str, type[Anyfast] | type[Apiany]] = {
    "anyfast": Anyfast,
    "apiany": Apiany,
}

__all__ = ["ADAPTERS", "Line", "Upstream"]
