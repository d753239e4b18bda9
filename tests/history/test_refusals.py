"""Refusals that come too fast are told together, and every one of them is counted."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from gateway.history.record import Record, Sums, UsageLine
from gateway.history.refusals import Refusals
from tests.support.histories import make_record
from tests.support.ledgers import make_id


def refuse(key: int = 1, status: int = 429, model: str = "gpt-image-2", *, is_known: bool = True) -> Record:
    return make_record(key=make_id("key", key), status=status, error=f"e{status}", model=model, is_model_known=is_known)


async def test_rest_is_counted_together() -> None:
    """A key's burst is written one by one, the rest at the window's end, another key's as ever."""
    told: list[Record] = []
    time = 0.0
    refusals = Refusals(told.append, burst=3, per_window=2, window_s=60, clock=lambda: time)
    made = [refuse() for _ in range(10)]
    for record in made:
        refusals.note(record)
    refusals.note(refuse(key=2))
    assert [record.key for record in told] == [make_id("key", 1)] * 3 + [make_id("key", 2)]
    await refusals.fold()
    assert len(told) == 4
    time = 60.0
    await refusals.fold()
    assert told[4:] == [made[3].model_copy(update={"repeats": 7})]
    refusals.note(refuse())
    assert (len(told), told[-1].repeats) == (6, 1)
    refusals.flush()
    assert len(told) == 6


async def test_quiet_key_has_its_burst_again() -> None:
    """A key that is refused no more is forgotten, and the next burst is written one by one."""
    told: list[Record] = []
    time = 0.0
    refusals = Refusals(told.append, burst=3, per_window=3, window_s=60, clock=lambda: time)
    for _ in range(3):
        refusals.note(refuse())
    time = 60.0
    await refusals.fold()
    for _ in range(4):
        refusals.note(refuse())
    assert [record.repeats for record in told] == [1] * 6
    refusals.flush()
    assert [record.repeats for record in told] == [1] * 7


async def test_invented_models_are_one_kind() -> None:
    """Whoever asks for thousands of models that do not exist gets one record for them."""
    told: list[Record] = []
    refusals = Refusals(told.append, burst=1)
    for number in range(1000):
        refusals.note(refuse(status=404, model=f"m{number}", is_known=False))
    refusals.flush()
    assert [record.repeats for record in told] == [1, 999]


@given(st.lists(st.builds(refuse, st.integers(1, 3), st.sampled_from([400, 429]), st.sampled_from(["a", "b"]))))
def test_sums_count_every_one(made: list[Record]) -> None:
    """However refusals are folded, the sums are those of all of them."""

    async def fold() -> list[Record]:
        told: list[Record] = []
        refusals = Refusals(told.append, burst=2)
        for record in made:
            refusals.note(record)
        refusals.flush()
        return told

    assert add_up(asyncio.run(fold())) == add_up(made)


def add_up(found: list[Record]) -> dict[UsageLine, Sums]:
    sums: dict[UsageLine, Sums] = {}
    for record in found:
        for line, amount in record.lines().items():
            sums[line] = sums.get(line, Sums()) + amount
    return sums
