"""Rules of the catalogue: which requests they hold for, what they change, and which mistakes are refused at start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.catalogue.catalogue import CatalogueError, load
from gateway.catalogue.document import When
from gateway.catalogue.rules import CallerIdentity, matches
from gateway.errors import UnsupportedValue, UpstreamUnavailable
from gateway.jobs.job import SQUARE, Shape, Size
from gateway.routing.plan import Circumstances, Plan
from gateway.routing.rights import Rights
from tests.support.plans import KEYS, make_job, picture, plan, shipped

ASKER = CallerIdentity("key_1", "ana", "design")
SECOND = {"strategy": "weighted"}
"""What rules of no interest change."""


def order(found: Plan) -> list[str]:
    return [choice.target.upstream for choice in found.choices]


@pytest.mark.parametrize(
    ("when", "yes", "no"),
    [
        ({"operation": "edit"}, {"operation": "edit"}, {}),
        ({"models": ["gpt-image-2"]}, {}, None),
        ({"models": ["gpt-image-1"]}, None, {}),
        ({"sizes": ["auto"]}, {}, {"size": SQUARE}),
        ({"sizes": ["1024x1024", "1536X1024"]}, {"size": Size(1536, 1024)}, {"size": Size(1024, 1536)}),
        ({"sizes": ["32:18"]}, {"size": Shape(16, 9, "2K")}, {"size": Shape(9, 16, "2K")}),
        ({"sizes": ["2048x1152"]}, {"size": Shape(16, 9, "2K")}, {"size": Shape(16, 9, "4K")}),
        ({"min_pixels": 1_048_577}, {"size": Size(1536, 1024)}, {"size": SQUARE}),
        ({"max_pixels": 1_048_576}, {}, {"size": Shape(1, 1, "2K")}),
        ({"max_pixels": 1_047_000}, {"operation": "edit", "references": (picture(2000, 900),)}, {}),
        ({"qualities": ["auto"]}, {}, {"quality": "medium"}),
        ({"qualities": ["high", "low"]}, {"quality": "low"}, {}),
        ({"min_n": 2}, {"n": 2}, {"n": 1}),
        ({"max_n": 2}, {"n": 2}, {"n": 3}),
        ({"mask": True}, {"operation": "edit", "masked": True}, {"operation": "edit"}),
        ({"mask": False}, {}, {"operation": "edit", "masked": True}),
        ({"min_references": 2}, {"operation": "edit", "images": 2}, {"operation": "edit", "images": 1}),
        ({"max_references": 0}, {}, {"operation": "edit"}),
        ({"keys": ["key_1"]}, {}, None),
        ({"keys": ["bob", "ana"]}, {}, None),
        ({"keys": ["bob"]}, None, {}),
        ({"teams": ["design"]}, {}, None),
        ({"teams": ["film"]}, None, {}),
        ({"min_n": 2, "qualities": ["high"]}, {"n": 2, "quality": "high"}, {"n": 2}),
    ],
    ids=str,
)
def test_condition_holds_or_not(when: dict[str, Any], yes: dict[str, Any] | None, no: dict[str, Any] | None) -> None:
    """Each condition holds for the one request and not for the other, and several hold together or not at all."""
    names = ("dall-e-3", "gpt-image-2")
    for asked, wanted in ((yes, True), (no, False)):
        if asked is not None:
            assert matches(When.model_validate(when), make_job(**asked), names, ASKER) is wanted


def test_nobody_is_no_team() -> None:
    """A rule for a team does not hold for a key without one."""
    assert not matches(When.model_validate({"teams": [""]}), make_job(), ("m",), CallerIdentity("key_1", "ana"))


def test_first_match_holds_alone() -> None:
    """Of several rules that match, the first is the one that counts, and nothing of the others."""
    catalogue = shipped(
        rules=[
            {"name": "many", "when": {"min_n": 2}, "strategy": "weighted"},
            {"when": {"min_n": 2}, "upstreams": ["apiany"], "strategy": "latency"},
            {"upstreams": ["anyfast"]},
        ]
    )
    many, one = plan(make_job(n=2), catalogue), plan(make_job(), catalogue)
    assert (many.rule, many.strategy, len(many.choices)) == ("many", "weighted", 3)
    assert (one.rule, one.strategy, order(one)) == ("rule 3", "cost", ["anyfast"])
    assert plan(make_job(), shipped()).rule is None


def test_rule_binds_and_orders_upstreams() -> None:
    """The rule's upstreams alone serve, in the rule's order; the others are told by its name."""
    catalogue = shipped(rules=[{"name": "flat", "upstreams": ["apiany", "anyfast-c"]}])
    found = plan(make_job(), catalogue)
    assert order(found) == ["apiany", "anyfast-c"]
    assert [(one.label, one.unfit.reason) for one in found.rejections] == [
        ("anyfast/main", "the rule `flat` excludes it")
    ]


def test_rule_may_leave_nobody() -> None:
    """A rule that leaves a model without an upstream is named; where its upstream is only off, that is told."""
    catalogue = shipped(rules=[{"name": "flat", "upstreams": ["apiany"]}])
    with pytest.raises(UnsupportedValue, match=r"anyfast: the rule `flat` excludes it"):
        plan(make_job(), catalogue, "anyfast/gpt-image-2")
    with pytest.raises(UnsupportedValue, match=r"the rule `flat` excludes it") as caught:
        plan(make_job(size=Size(1920, 1088)), catalogue)
    assert caught.value.param == "size"
    bare = shipped(without="ANYFAST_API_KEY", rules=[{"name": "flat", "upstreams": ["apiany"]}])
    with pytest.raises(UnsupportedValue, match=r"anyfast: the rule `flat` excludes it"):
        plan(make_job(), bare, "anyfast/gpt-image-2")
    off = shipped(without="APIANY_API_KEY", rules=[{"name": "flat", "upstreams": ["apiany"]}])
    with pytest.raises(UpstreamUnavailable, match=r"apiany: env:APIANY_API_KEY is not set"):
        plan(make_job(), off)


def test_defaults_stand_where_nothing_was_said() -> None:
    """What the caller left open is the rule's; what it said is its own."""
    catalogue = shipped(rules=[{"defaults": {"size": "1536x1024", "quality": "low"}}])
    left_open, said = plan(make_job(), catalogue), plan(make_job(size=SQUARE, quality="high"), catalogue)
    assert {(choice.fit.made, choice.fit.sent.quality) for choice in left_open.choices} == {(Size(1536, 1024), "low")}
    assert {(choice.fit.made, choice.fit.sent.quality) for choice in said.choices} == {(SQUARE, "high")}


def test_defaults_keep_within_caps() -> None:
    """A rule's default never passes what a key is held to."""
    catalogue = shipped(rules=[{"defaults": {"size": "2048x2048", "quality": "high"}}])
    held = plan(make_job(), catalogue, rights=Rights(max_quality="medium", max_pixels=SQUARE.pixels))
    assert {(choice.fit.made, choice.fit.sent.quality) for choice in held.choices} == {(SQUARE, "medium")}


def test_rule_changes_what_is_compromised() -> None:
    """A rule may take the nearest size, or no compromise, whatever the model says."""
    odd = make_job(size=Size(1920, 1088))
    nearest = shipped(upstreams=["apiany"], rules=[{"sizes": "nearest"}])
    assert plan(odd, nearest).choices[0].fit.made == Size(2048, 1152)
    strict = shipped(rules=[{"compromises": "refuse"}])
    with pytest.raises(UnsupportedValue, match="would not honour quality"):
        plan(make_job("edit", quality="high"), strict, "anyfast/gpt-image-2")


def test_rule_changes_what_becomes_of_other_sizes() -> None:
    """A rule may keep back or mend a picture of another size, whatever the model says."""
    rules = [{"when": {"min_n": 2}, "other_size": "refuse"}, SECOND]
    catalogue = shipped(other_size="resize", rules=rules)
    assert {choice.other_size for choice in plan(make_job(n=2), catalogue).choices} == {"refuse"}
    assert {choice.other_size for choice in plan(make_job(), catalogue).choices} == {"resize"}


def test_request_chooses_over_the_rule() -> None:
    """A strategy that the request chose beats the rule's, which beats the model's."""
    catalogue = shipped(strategy="priority", rules=[{"when": {"min_n": 2}, "strategy": "weighted"}])
    assert plan(make_job(), catalogue).strategy == "priority"
    assert plan(make_job(n=2), catalogue).strategy == "weighted"
    chosen = plan(make_job(n=2), catalogue, around=Circumstances(strategy="latency"))
    assert chosen.strategy == "latency"


def test_alias_has_its_models_rules() -> None:
    """A rule for a model holds for its aliases, and one for an alias for that alone."""
    catalogue = shipped(rules=[{"name": "old", "when": {"models": ["dall-e-3"]}, **SECOND}, {"name": "all", **SECOND}])
    assert [plan(make_job(), catalogue, name).rule for name in ("dall-e-3", "gpt-image-1", "gpt-image-2")] == [
        "old",
        "all",
        "all",
    ]


GOOD = """\
default_model: pictures
upstreams:
  one:
    kind: anyfast
    base_url: https://one.example
    model: gpt-image-2
    credentials:
      - key: env:ANYFAST_API_KEY
  two:
    kind: apiany
    base_url: https://two.example
    model: gpt-image-2
    credentials:
      - key: env:APIANY_API_KEY
models:
  pictures: {upstreams: [one]}
aliases:
  old: {model: pictures}
rules:
"""


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("  - upstreams: [three]", 1, "rules.0.upstreams: there is no upstream `three`; there are one, two"),
        ("  - upstreams: [one, one]", 1, "rules.0.upstreams: `one` is here twice"),
        ("  - upstreams: []", 1, "rules.0.upstreams: needs at least 1 entry"),
        ("  - when: {operation: edit}", 1, "rules.0: changes nothing; give upstreams, strategy, defaults"),
        ("  - name: x\n    defaults: {}", 1, "rules.0: changes nothing"),
        ("  - strategy: fastest", 1, "'cost', 'priority', 'weighted' or 'latency'"),
        ("  - strategy: cost\n    when:\n      models: [new]", 3, "there is no model `new`; there are pictures, old"),
        (
            "  - upstreams: [two]\n    when: {models: [old]}",
            1,
            "rules.0.upstreams: none of them serves `old`, which has one",
        ),
        ("  - strategy: cost\n    when: {min_n: 3, max_n: 2}", 2, "min_n is more than max_n"),
        ("  - strategy: cost\n    when: {operation: generation, mask: true}", 2, "a generation has neither a mask"),
        ("  - strategy: cost\n    when: {sizes: [1000x1000]}", 2, "both edges must be multiples of 16"),
        ("  - strategy: cost\n    when: {sizes: [large]}", 2, "'large' is not a size; write WIDTHxHEIGHT"),
        ("  - defaults: {size: auto}", 1, "'auto' is not a size"),
        ("  - defaults: {quality: auto}", 1, "'low', 'medium' or 'high'"),
        ("  - when: {colour: red}\n    strategy: cost", 1, "colour"),
        ("  - strategy: cost\n  - strategy: priority", 2, "rules.1: never applies: rule 1 has no `when`"),
    ],
    ids=str,
)
def test_mistake_is_refused_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    """A rule that cannot be meant stops the start, with file, line and what would be right."""
    path = tmp_path / "gateway.yaml"
    path.write_text(f"{GOOD}{text}\n")
    with pytest.raises(CatalogueError) as caught:
        load(path, KEYS)
    assert f"gateway.yaml:{GOOD.count(chr(10)) + line}: " in str(caught.value)
    assert words in str(caught.value)
