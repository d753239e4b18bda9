"""Rules that can never hold are found, and no other rule is called one."""

from typing import Any

import pytest

from gateway.catalogue.dead_rules import find_dead_rules
from gateway.catalogue.document import Document
from tests.support.plans import shipped

CHANGE = {"strategy": "priority"}


def document(*whens: dict[str, Any]) -> Document:
    return shipped(rules=[{"when": when, **CHANGE} for when in whens]).document


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"operation": "edit"}, {"operation": "edit", "min_n": 2}),
        ({"operation": "edit"}, {"mask": True}),
        ({"operation": "edit"}, {"min_references": 2, "teams": ["design"]}),
        ({"mask": False}, {"operation": "generation"}),
        ({"qualities": ["low", "medium", "high", "auto"]}, {"min_n": 3}),
        ({"qualities": ["low", "high"]}, {"qualities": ["high"]}),
        ({"max_pixels": 4_000_000}, {"sizes": ["1024x1024", "1536x1024"]}),
        ({"min_pixels": 655_360}, {"sizes": ["16:9"]}),
        ({"models": ["gpt-image-2"]}, {"models": ["dall-e-3"]}),
        ({"teams": ["design", "film"]}, {"teams": ["film"]}),
        ({"min_n": 2}, {"min_n": 3, "max_n": 4}),
        ({"max_references": 16}, {"operation": "generation"}),
    ],
)
def test_covered_rule_is_found(earlier: dict[str, Any], later: dict[str, Any]) -> None:
    """A rule whose every request an earlier rule takes is named, with that rule."""
    assert find_dead_rules(document(earlier, later)) == [
        (1, "rule 1 comes first and applies to every request that meets it")
    ]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"operation": "edit", "min_n": 2}, {"operation": "edit"}),
        ({"mask": True}, {"operation": "edit"}),
        ({"models": ["dall-e-3"]}, {"models": ["gpt-image-2"]}),
        ({"qualities": ["low", "medium", "high"]}, {"min_n": 2}),
        ({"max_pixels": 1_048_576}, {"sizes": ["1024x1024", "2048x2048"]}),
        ({"max_pixels": 4_000_000}, {"sizes": ["1024x1024", "16:9"]}),
        ({"teams": ["film"]}, {"keys": ["ana"]}),
        ({"min_n": 2}, {"max_n": 4}),
    ],
)
def test_reachable_rule_is_not_found(earlier: dict[str, Any], later: dict[str, Any]) -> None:
    """A rule with one request of its own is not called dead."""
    assert find_dead_rules(document(earlier, later)) == []


@pytest.mark.parametrize(
    "when",
    [
        {"sizes": ["1024x1024"], "min_pixels": 2_000_000},
        {"min_pixels": 9_000_000},
        {"max_pixels": 600_000},
        {"mask": True, "max_references": 0},
        {"operation": "edit", "max_references": 0},
    ],
)
def test_impossible_rule_is_found(when: dict[str, Any]) -> None:
    """A rule that contradicts itself is named, and shadows no other."""
    assert find_dead_rules(document(when, {"min_n": 2})) == [
        (0, "no request can meet all its conditions, so it never applies")
    ]
