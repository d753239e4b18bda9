"""What a paid call is noted down with, and what is left of it in Redis."""

from __future__ import annotations

import asyncio

from tests.support.gateways import TASKS, Gateway
from tests.support.store_reader import read_calls, read_everything


def test_call_is_noted_without_its_prompt(gateway: Gateway) -> None:
    """A call's note has its target, its terms and what is wanted, its ticket stands beside it, and no prompt does."""
    answer = gateway.generate(model=TASKS, prompt="a most secret cat", output_format="webp", size="1024x1024", n=2)
    ids = [call.call for call in gateway.calls(answer.headers["x-gateway-task"])]
    (call,) = asyncio.run(read_calls(gateway.store_url, ids))
    assert call.note
    assert (call.note.target, call.note.slots, call.note.format) == ("apiany/main", (0, 1), "webp")
    assert call.note.prices == gateway.services.health.targets["apiany/main"].prices
    assert call.ticket
    assert call.ticket.poll_path.endswith(call.ticket.id)
    assert "secret cat" not in asyncio.run(read_everything(gateway.store_url))
