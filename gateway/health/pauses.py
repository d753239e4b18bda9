"""The pauses that operators make, in Redis: of everything, of a team, of an upstream. Each ends by itself at its time.

All times are those of Redis's clock. `TargetStore` reads the pauses with the conditions of the targets.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, cast

from gateway.health.condition import EVERYTHING
from gateway.store import names
from gateway.store.client import StoreClient
from gateway.store.windows import MICROSECONDS

# Pauses that have ended are removed here: until then every reader leaves them out.
_SET = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local flat, before = redis.call('HGETALL', KEYS[1]), ''
for at = 1, #flat, 2 do
  local stop = tonumber(string.match(flat[at + 1], ' (%d+)$'))
  if stop > 0 and stop <= now then redis.call('HDEL', KEYS[1], flat[at])
  elseif flat[at] == ARGV[1] then before = flat[at + 1] end
end
local span = tonumber(ARGV[2])
local since = before ~= '' and string.match(before, '^%d+') or string.format('%.0f', now)
local after = since .. ' ' .. (span > 0 and string.format('%.0f', now + span) or '0')
redis.call('HSET', KEYS[1], ARGV[1], after)
return {before, after}
"""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of `everything`, `team:NAME` or `upstream:NAME`, from `since` until `until`, in µs; None is no end."""

    scope: str
    since: int
    until: int | None


class PauseStore:
    """The pauses in one store. Every method raises StoreUnavailable."""

    def __init__(self, redis: StoreClient) -> None:
        self._redis = redis

    async def put(self, scope: str, seconds: int | None) -> tuple[Pause | None, Pause]:
        """Pause a scope for `seconds` from now, None without an end. Return its former pause or None, and the new one.

        A scope that is paused already keeps its beginning, and gets the new end.
        """
        span = "0" if seconds is None else str(seconds * MICROSECONDS)
        before, after = await _reply(self._redis.eval(_SET, 1, names.PAUSES(), scope, span))
        return _read(scope, before) if before else None, _read(scope, after)

    async def remove(self, scope: str) -> Pause | None:
        """End a scope's pause, and return it; None if the scope is not paused."""
        found = next((one for one in await self.list() if one.scope == scope), None)
        await _reply(self._redis.hdel(names.PAUSES(), scope))
        return found

    async def list(self) -> list[Pause]:
        """Return the present pauses: everything first, then teams and upstreams by name."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.hgetall(names.PAUSES())
            (seconds, rest), fields = await pipe.execute()
        now = int(seconds) * MICROSECONDS + int(rest)
        found = [_read(scope, text) for scope, text in fields.items()]
        present = [one for one in found if one.until is None or one.until > now]
        return sorted(present, key=lambda one: (one.scope != EVERYTHING, one.scope))


def _read(scope: str, text: str) -> Pause:
    since, until = map(int, text.split())
    return Pause(scope, since, until or None)


async def _reply(answer: Awaitable[Any] | Any) -> Any:
    # redis-py has one type for the answers of its blocking and its asynchronous client.
    return await cast(Awaitable[Any], answer)
