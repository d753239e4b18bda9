"""The log of the changes that operators make.

It hides secrets in the values it gets: fields with a secret's name, and keys of callers, operators and vendors.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import time_ns
from typing import Any, cast

from pydantic_core import from_json, to_json

from gateway.catalogue.document import Accounting
from gateway.ids import new_id
from gateway.store import names
from gateway.store.client import StoreClient

ADMIN_TOKEN = "admin-token"  # noqa: S105 (the name of an actor, not a token)
MOST = 20_000

_DAY_MS = 86_400_000
_BATCH = 200
_LOOKED_AT = 20_000
_HIDDEN = "***"
_SECRET_FIELDS = frozenset({"secret", "token", "digest", "pepper", "password", "signing_key", "api_key"})
# Keys of callers and operators, and of vendors by their usual form; the beginning identifies the key to people.
_SECRET = re.compile(r"\b((?:igw|igo)_[0-9A-Za-z]{4})[0-9A-Za-z]{20,}|\b(sk-[\w-]{2})[\w-]{10,}")


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `before` and `after` hold the fields that differ, None for an absent subject. `time` is in µs.

    `actor` is `admin-token`, `operator:NAME` or `cli:USER`; `subject` is the changed thing, as in `key_…` or
    `team:design`.
    """

    id: str
    time: int
    actor: str
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str | None = None


class Changes:
    """The log in one store. In tests, `now` returns the µs that replace the clock."""

    def __init__(
        self, redis: StoreClient, accounting: Accounting, *, now: Callable[[], int] = lambda: time_ns() // 1000
    ) -> None:
        self._redis = redis
        self._kept_ms = accounting.usage_days * _DAY_MS
        self._now = now

    async def write(
        self,
        actor: str,
        action: str,
        subject: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        address: str | None = None,
    ) -> Change:
        """Add a change, and remove some that are too old or too many. Returns the stored change, without secrets.

        Values are JSON values or dates. None stands for an absent subject. Raises StoreUnavailable.
        """
        was, became = _differences(_plain(before), _plain(after))
        now = self._now()
        change = Change(new_id("log", at=now / 1_000_000), now, actor, action, _hide(subject), was, became, address)
        fields = {
            "id": change.id,
            "at": str(now),
            "actor": actor,
            "action": action,
            "subject": change.subject,
            "before": to_json(was).decode(),
            "after": to_json(became).decode(),
            "address": address or "",
        }
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xadd(names.CHANGES(), cast(Any, fields), maxlen=MOST, approximate=True)
            pipe.xtrim(names.CHANGES(), minid=str(max(0, now // 1000 - self._kept_ms)), approximate=True)
            await pipe.execute()
        return change

    async def read(
        self, since: int = 0, subject: str | None = None, actor: str | None = None, most: int = 50
    ) -> list[Change]:
        """Return the changes since an instant in µs, newest first, no more than `most`. Raises StoreUnavailable.

        `subject` and `actor` select changes; None allows every value. Changes older than `usage_days` are left out.
        """
        found: list[Change] = []
        latest, looked_at = "+", 0
        since = max(since, self._now() - self._kept_ms * 1000)
        while looked_at < _LOOKED_AT:
            rows = await _reply(self._redis.xrevrange(names.CHANGES(), max=latest, min="-", count=_BATCH))
            for entry, fields in rows:
                change = _read_change(fields)
                if change.time < since:
                    return found
                is_wanted = subject in (None, change.subject) and actor in (None, change.actor)
                found += [change] if is_wanted else []
                if len(found) == most:
                    return found
                latest = f"({entry}"
            looked_at += len(rows)
            if len(rows) < _BATCH:
                break
        return found


def _plain(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the fields as JSON values, with every secret hidden."""
    if value is None:
        return None
    return cast(dict[str, Any], _hide(from_json(to_json(dict(value)))))


def _hide(value: Any) -> Any:
    if isinstance(value, str):
        return _SECRET.sub(lambda match: f"{match[1] or match[2]}{_HIDDEN}", value)
    if isinstance(value, list):
        return [_hide(item) for item in value]
    if isinstance(value, dict):
        return {
            name: _HIDDEN if name.lower() in _SECRET_FIELDS and item is not None else _hide(item)
            for name, item in value.items()
        }
    return value


def _differences(
    before: dict[str, Any] | None, after: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return both without their equal fields. If one is None, return both as they are."""
    if before is None or after is None:
        return before, after
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return (
        {name: before[name] for name in changed if name in before},
        {name: after[name] for name in changed if name in after},
    )


def _read_change(fields: Mapping[str, str]) -> Change:
    return Change(
        id=fields["id"],
        time=int(fields["at"]),
        actor=fields["actor"],
        action=fields["action"],
        subject=fields["subject"],
        before=from_json(fields["before"]),
        after=from_json(fields["after"]),
        address=fields["address"] or None,
    )


async def _reply(answer: Awaitable[Any] | Any) -> Any:
    # redis-py has one type for the answers of its blocking and its asynchronous client.
    return await cast(Awaitable[Any], answer)
