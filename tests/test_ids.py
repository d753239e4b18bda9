"""Ids sort by time and give it back."""

import os
from datetime import UTC, datetime, timedelta
from functools import reduce
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ids import draw_letters, first_id, new_id, time_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(0, 253_402_300_799_999))
def test_time_comes_back_exactly(milliseconds):
    """The time an id was made is read out of it to the millisecond."""
    identifier = new_id("task", at=milliseconds / 1000)
    assert identifier.startswith("task_")
    assert len(identifier) == 31
    assert (time_of(identifier) - EPOCH) // timedelta(milliseconds=1) == milliseconds


def test_ids_sort_by_time():
    """Ids made later sort later as text."""
    ids = [new_id("img", at=second) for second in (1, 2, 1e9, 1.7e9, 1.8e9, 9e9)]
    assert ids == sorted(ids)
    assert len({new_id("img", at=1) for _ in range(1000)}) == 1000


def test_id_of_now():
    """An id made now says now, and what follows a dot is no part of it."""
    assert abs((time_of(new_id("img") + ".png") - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize("text", ["", "img_", "img_" + "8" * 26, "img_" + "0" * 25 + "u", "img_" + "7" * 26, "0" * 27])
def test_other_text_is_no_id(text):
    """Text of the wrong length, alphabet or century is refused."""
    with pytest.raises(ValueError, match="not an id"):
        time_of(text)


@given(st.integers(1, 253_402_300_799_999))
def test_bound_parts_earlier_from_later(milliseconds):
    """A bound comes after every id made earlier, and before every id made at its time or later."""
    bound = first_id("rec", milliseconds)
    assert new_id("rec", at=(milliseconds - 1) / 1000) < bound < new_id("rec", at=milliseconds / 1000)
    assert first_id("rec", -5) == first_id("rec", 0) < first_id("rec", 2**60)


def test_id_is_a_uuid_of_version_7():
    """The 128 bits of an id have the version and the variant of a UUIDv7."""
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    for _ in range(200):
        number = reduce(lambda value, letter: value * 32 + alphabet.index(letter), new_id("img")[4:], 0)
        made = UUID(int=number)
        assert (made.version, made.variant) == (7, RFC_4122)


def test_random_letters_use_the_whole_alphabet():
    """Sixteen random letters of 32 each; no two draws are alike, also across the refills of the random bytes."""
    draws = [draw_letters() for _ in range(2000)]
    assert len(set(draws)) == 2000
    assert {len(draw) for draw in draws} == {16}
    assert len(set("".join(draws))) == 32


def test_forked_process_makes_other_ids():
    """A child process does not make the ids that its parent makes next."""
    new_id("img", at=1)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, " ".join(new_id("img", at=1) for _ in range(20)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading, encoding="ascii") as pipe:
        theirs = set(pipe.read().split())
    ours = {new_id("img", at=1) for _ in range(20)}
    assert len(theirs) == 20
    assert not theirs & ours
