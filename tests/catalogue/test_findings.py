"""What `check` finds in a catalogue that can be used: each finding for its cause, and none in a good one."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from gateway.catalogue.catalogue import Catalogue, load
from gateway.catalogue.findings import Finding, inspect, reach
from gateway.cli.check import describe_drift
from gateway.health.drift import Drift
from tests.support.plans import SHIPPED, shipped

KEYS = {"ONE": "k1", "TWO": "k2"}
WHOLE = """
    default_model: pictures
    upstreams:
      one:
        kind: apiany
        base_url: https://one.test
        model: gpt-image-2
        credentials: [{key: "env:ONE"}]
        prices: {per_image: "0.03"}
      two:
        kind: anyfast
        base_url: https://two.test
        model: gpt-image-2
        credentials: [{key: "env:TWO"}]
        prices: {per_image: "0.05"}
    models:
      pictures: {upstreams: [one, two]}
      cheap: {upstreams: [one]}
    aliases:
      dall-e-3: {model: pictures}
"""


def read(folder: Path, text: str, **keys: str) -> Catalogue:
    path = folder / "gateway.yaml"
    path.write_text(dedent(text))
    return load(path, keys)


def found(catalogue: Catalogue) -> list[tuple[Any, ...]]:
    return [(one.level, one.kind, one.place) for one in inspect(catalogue)]


def test_good_catalogue_has_no_findings(tmp_path: Path) -> None:
    """Where all keys are set, everything is priced and everything is reached, nothing is said."""
    catalogue = read(tmp_path, WHOLE, **KEYS)
    assert inspect(catalogue) == []
    assert reach(catalogue) == {
        "pictures": ["one/main", "two/main"],
        "cheap": ["one/main"],
        "dall-e-3": ["one/main", "two/main"],
    }


def test_shipped_catalogue_wants_prices_alone() -> None:
    """With all keys set, the shipped catalogue lacks only what a vendor does not tell."""
    assert {one.kind for one in inspect(shipped())} == {"no_price"}
    assert inspect(shipped(has_prices=True)) == []


def test_unreachable_model_is_found(tmp_path: Path) -> None:
    """A model without a configured upstream is a note, and so is its alias; a default that leads to it is a warning."""
    text = WHOLE.replace("default_model: pictures", "default_model: dall-e-2").replace(
        "dall-e-3: {model: pictures}", "dall-e-2: {model: cheap}"
    )
    assert found(read(tmp_path, text, TWO="k2")) == [
        ("note", "upstream_not_configured", ("upstreams", "one")),
        ("warning", "unreachable", ("default_model",)),
        ("note", "unreachable", ("models", "cheap")),
        ("note", "unreachable", ("aliases", "dall-e-2")),
    ]


@pytest.mark.parametrize("name", ["ANYFAST_API_KEY", "ANYFAST_C_API_KEY", "APIANY_API_KEY"])
def test_shipped_catalogue_has_no_warning(name: str) -> None:
    """The shipped catalogue with any one of its keys is as it is meant: nothing in it is a warning."""
    assert {one.level for one in inspect(load(SHIPPED, {name: "x"}))} == {"note"}


def test_forgotten_price_is_a_warning(tmp_path: Path) -> None:
    """A target without prices beside one with prices is a warning; a catalogue without any price is a choice."""
    one = WHOLE.replace('prices: {per_image: "0.03"}', "", 1)
    assert found(read(tmp_path, one, **KEYS)) == [("warning", "no_price", ("upstreams", "one", "prices"))]
    none = one.replace('prices: {per_image: "0.05"}', "", 1)
    assert {one.level for one in inspect(read(tmp_path, none, **KEYS))} == {"note"}


def test_unused_upstream_is_found(tmp_path: Path) -> None:
    """An upstream that no model names is a warning."""
    text = WHOLE.replace("[one, two]", "[one]")
    assert found(read(tmp_path, text, **KEYS)) == [("warning", "unused_upstream", ("upstreams", "two"))]


def test_credential_without_key_is_found(tmp_path: Path) -> None:
    """A second credential whose key is not set is a warning: its upstream is on, so nobody would notice."""
    text = WHOLE.replace('[{key: "env:TWO"}]', '[{key: "env:TWO"}, {name: spare, key: "file:/nowhere/key"}]')
    assert found(read(tmp_path, text, **KEYS)) == [("warning", "no_key", ("upstreams", "two", "credentials", 1, "key"))]


def test_rule_without_upstream_is_found(tmp_path: Path) -> None:
    """A rule whose upstreams are not configured is a warning; one that leaves a model without an upstream is a note."""
    text = WHOLE + "    rules:\n      - {when: {min_n: 2}, upstreams: [two]}\n"
    noted = inspect(read(tmp_path, text, **KEYS))
    assert [(one.level, one.kind) for one in noted] == [("note", "rule_without_upstream")]
    assert "leaves no upstream to `cheap`" in noted[0].text
    warned = inspect(read(tmp_path, text, ONE="k1"))
    place = ("rules", 0, "upstreams")
    text = "two is not configured: the gateway refuses the requests that it applies to"
    assert Finding("warning", "rule_without_upstream", place, text) in warned


def test_dead_rule_is_found(tmp_path: Path) -> None:
    """A rule behind one that takes all its requests is a warning that names that one."""
    rules = """
    rules:
      - {name: large, when: {min_pixels: 2000000}, strategy: priority}
      - {when: {sizes: [2048x2048]}, strategy: cost}
    """
    (one,) = inspect(read(tmp_path, WHOLE.rstrip() + rules, **KEYS))
    assert (one.kind, one.place) == ("dead_rule", ("rules", 1))
    assert "rule `large`" in one.text


@pytest.mark.parametrize(
    ("prices", "holes"),
    [
        ('{by_size: {any: {1K: "0.01", 2K: "0.02"}}}', "low at 4K, medium at 4K, high at 4K"),
        ('{by_size: {low: {1K: "0.01"}, any: {2K: "0.02", 4K: "0.02"}}}', "medium at 1K, high at 1K"),
        ('{per_megapixel: {low: "0.01", high: "0.02"}}', "medium"),
    ],
)
def test_hole_in_prices_is_found(tmp_path: Path, prices: str, holes: str) -> None:
    """A quality or a tier that a target makes and that has no price is named."""
    (one,) = inspect(read(tmp_path, WHOLE.replace('{per_image: "0.03"}', prices), **KEYS))
    assert (one.kind, one.place) == ("missing_price", ("upstreams", "one", "prices"))
    assert f"no price for {holes}, which it makes" in one.text


def test_price_nobody_reaches_is_no_hole(tmp_path: Path) -> None:
    """A tier that the credential's own sizes leave out needs no price."""
    text = WHOLE.replace('{per_image: "0.03"}', '{by_size: {any: {1K: "0.01"}}}').replace(
        '{key: "env:ONE"}', '{key: "env:ONE", capabilities: {sizes: [auto, 1024x1024]}}'
    )
    assert inspect(read(tmp_path, text, **KEYS)) == []


def test_drift_is_told(tmp_path: Path) -> None:
    """What was counted of an upstream is told with its number; an upstream that is gone is left out."""
    drifts = [
        Drift("one", "made", "size", 3, 1_700_000_000_000_000, "1024x1024 for 1536x1024"),
        Drift("gone", "refused", "n", 1, 0),
    ]
    (one,) = describe_drift(read(tmp_path, WHOLE, **KEYS), drifts)
    assert one.place == ("upstreams", "one")
    expected = "made another size than promised, 3 times, last at 2023-11-14T22:13Z: 1024x1024 for 1536x1024"
    assert one.text == expected
