"""What a test changes of a gateway: parts of its catalogue, and settings that name its own address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OWN_URL = "http://own.invalid"
"""Stands for the gateway's own address, which is known only once it listens."""


def at_home(settings: Mapping[str, Any] | None, url: str) -> dict[str, Any]:
    return {name: url if value == OWN_URL else value for name, value in (settings or {}).items()}


def merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in changes.items():
        is_nested = isinstance(value, Mapping) and isinstance(merged.get(name), dict)
        merged[name] = merge(merged[name], value) if is_nested else value
    return merged
