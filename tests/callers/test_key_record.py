"""What may be said of a key: checked in one place, and every mistake names its field."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.callers.key_record import KeyChange, KeyRecord, NewKey

MADE = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", " ana"),
        ("name", None),
        ("team", "a\nb"),
        ("team", "ü" * 65),
        ("enabled", "yes"),
        ("enabled", None),
        ("models", []),
        ("models", [""]),
        ("upstreams", "anyfast"),
        ("max_quality", "best"),
        ("max_pixels", 0),
        ("max_pixels", "1"),
        ("max_n", 11),
        ("max_n", True),
        ("may_pin_upstream", 1),
        ("expires", "soon"),
        ("expires", 5),
        ("expires", "1800000000"),
        ("expires", True),
        ("addresses", ["300.1.1.1"]),
        ("addresses", ["example.com"]),
        ("metadata", {"": "x"}),
        ("metadata", {str(number): "" for number in range(17)}),
        ("demo", True),
        ("hint", "igw_"),
    ],
    ids=repr,
)
def test_bad_value_names_its_field(field: str, value: Any) -> None:
    """A wrong value, or a field that an operator may not set, is refused by its name."""
    with pytest.raises(ValidationError) as caught:
        KeyChange.model_validate({field: value})
    assert {str(one["loc"][0]) for one in caught.value.errors()} == {field}


def test_new_key_needs_a_name() -> None:
    """Nothing else is required."""
    with pytest.raises(ValidationError):
        NewKey.model_validate({"team": "design"})
    assert NewKey.model_validate({"name": "ana"}).changes() == {"name": "ana"}


def test_values_take_their_one_spelling() -> None:
    """Networks, times and repeated names are kept in one spelling, so that they can be compared."""
    said = {"addresses": ["10.1.2.3/8", "10.0.0.0/8"], "expires": "2027-01-01", "models": ["a", "a"]}
    change = KeyChange.model_validate(said)
    assert change.addresses == ("10.0.0.0/8",)
    assert change.expires == datetime(2027, 1, 1, tzinfo=UTC)
    assert change.models == ("a",)


def test_record_survives_its_hash() -> None:
    """What is written to Redis is what is read from it."""
    said = NewKey(name="ana", expires=MADE, metadata={"cost": "42"}, addresses=("::1/128",), max_quality="low")
    record = KeyRecord(id="key_1", created=MADE, rotated=MADE, **said.model_dump())
    assert KeyRecord.from_hash(record.to_hash()) == record


def test_expiry_counts_from_its_instant() -> None:
    """A key works until the instant that its expiry names, and one without never ends."""
    record = KeyRecord(id="key_1", name="ana", created=MADE, expires=datetime(2026, 12, 1, tzinfo=UTC))
    assert not record.has_expired(datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC))
    assert record.has_expired(datetime(2026, 12, 1, tzinfo=UTC))
    assert not KeyRecord(id="key_1", name="ana", created=MADE).has_expired(datetime(2999, 1, 1, tzinfo=UTC))
