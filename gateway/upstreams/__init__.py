"""One module a vendor: `NAME.py` holds the dialect of the kind NAME of `catalogue.vendors`, as `ADAPTER`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from gateway.catalogue.vendors import VENDORS
from gateway.upstreams.base import Adapter
from gateway.upstreams.client import UpstreamClient


def _load_adapter(kind: str) -> type[Adapter]:
    # By name, so that no list of vendors is kept twice.
    found: type[Adapter] = import_module(f"{__name__}.{kind}").ADAPTER
    return found


ADAPTERS: Mapping[str, type[Adapter]] = {kind: _load_adapter(kind) for kind in VENDORS}

__all__ = ["ADAPTERS", "Adapter", "UpstreamClient"]
