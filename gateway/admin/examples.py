"""Examples for the admin API's OpenAPI document: a body for each route that takes one, and values of paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VALUES: Mapping[str, str] = {
    "key_id": "key_01k0000000000000000000000",
    "team": "design",
    "name": "eva",
    "label": "upstream/main",
    "upstream": "upstream",
    "record_id": "req_01k0000000000000000000000",
    "message_id": "msg_01k0000000000000000000000",
}
"""A value for each name in a path."""

_LIMITS = {"usd_month": "200", "images_minute": 30, "concurrent_requests": 10}

BODIES: Mapping[str, dict[str, Any]] = {
    "create_key": {
        "a name alone": {"name": "ana"},
        "with caps and limits": {
            "name": "ana",
            "team": "design",
            "max_quality": "medium",
            "expires": "2030-01-01T00:00:00Z",
            "limits": {"usd_total": "1.50", "images_minute": 5},
        },
    },
    "change_key": {"disable": {"enabled": False}, "lift a cap": {"max_quality": None}},
    "rotate_key": {"with an hour of grace": {"grace_s": 3600}},
    "show_webhook_secret": {"show": {}, "rotate": {"rotate": True}},
    "set_limits_of_everyone": {"dollars a month": {"usd_month": "2000"}},
    "set_limits_of_team": {"several": _LIMITS},
    "set_limits_of_key": {"several": _LIMITS, "none": {}},
    "pause_everything": {"until it is resumed": {}, "for two hours": {"for_s": 7200}},
    "pause_team": {"until it is resumed": {}, "for two hours": {"for_s": 7200}},
    "pause_upstream": {"until it is resumed": {}, "for two hours": {"for_s": 7200}},
    "make_credit": {"to everyone": {"scope": "everyone", "usd": "-0.30", "reason": "a lost picture"}},
    "create_operator": {"read-only": {"name": "eva"}, "full access": {"name": "tom", "role": "admin"}},
}
"""For the name of each operation with a body, its examples with their names."""
