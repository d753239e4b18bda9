"""Sizes and durations with units: what an operator means is what counts, and nothing is guessed."""

from __future__ import annotations

import pytest

from gateway.process.units import read_bytes, read_seconds


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("256MB", 256_000_000), ("256 MB", 256_000_000), ("256mb", 256_000_000), ("256MiB", 256 * 2**20)),
        *(("4GiB", 4 * 2**30), ("4Gi", 4 * 2**30), ("1.5GB", 1_500_000_000), ("10k", 10_000), ("7", 7), ("7B", 7)),
    ],
)
def test_sizes(text: str, number: int) -> None:
    """Decimal units are powers of ten, and those with an `i` powers of two, as in the standard."""
    assert read_bytes(text) == number


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("90", 90),
        ("5m", 300),
        ("5min", 300),
        ("2h", 7200),
        ("1d", 86_400),
        ("1w", 604_800),
        ("250ms", 0.25),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A text with a unit is so many seconds."""
    assert read_seconds(text) == seconds


@pytest.mark.parametrize("value", [30, 1.5, None, True, [1]])
def test_other_values_stay(value: object) -> None:
    """A number is bytes or seconds already, and anything else is for the field to refuse."""
    assert read_bytes(value) is value
    assert read_seconds(value) is value


@pytest.mark.parametrize("text", ["", "lots", "256 megs", "-1MB", "1e9", "MB", "1,5GB", "٣MB", "9" * 400])
def test_unclear_size_is_refused(text: str) -> None:
    """A text that is no size is refused with a right one."""
    with pytest.raises(ValueError, match="256MB"):
        read_bytes(text)


@pytest.mark.parametrize("text", ["", "soon", "10 secs", "5M", "-1s", "1:30", "9" * 400])
def test_unclear_duration_is_refused(text: str) -> None:
    """A text that is no duration is refused with a right one; `M` could be months."""
    with pytest.raises(ValueError, match="5m, 2h"):
        read_seconds(text)
