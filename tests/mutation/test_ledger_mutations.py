"""A test of the tests: hundreds of small mistakes in the ledger's scripts, each found out within seconds."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.store.lua import read_sources
from tests.mutation.survivors import LEDGER
from tests.support.ledgers import is_soak
from tests.support.lua_mutations import Mutation, list_mutations
from tests.support.mutation_runner import Job, run_mutants

SHARE = 8
"""One mistake in so many is tried, always the same ones, and at least LEAST of each file."""

LEAST = 4
PARTS = 4
TESTS = tuple(
    f"tests/{name}.py"
    for name in (
        "money/test_ledger",
        "money/test_ledger_joining",
        "money/test_ledger_looks",
        "money/test_ledger_bounds",
        "money/test_ledger_arguments",
        "state/test_call_store",
        "money/test_audit",
        "money/test_store_epoch",
        "money/test_ledger_model",
    )
)
SOURCES = read_sources("ledger")
NEAR = {name: (name,) for name in SOURCES} | {
    "raise": ("raise_price", "raise"),
    "end_wait": ("leave", "end_wait"),
    "retry_wait": ("check_first_request", "retry_wait"),
    "look": ("look", "leave"),
    "limits": ("limits_of", "limits"),
    "holds": ("holds", "orphans", "overdue", "left"),
    "show": ("show", "show_all"),
    "recount": ("run", "recount"),
    "reindex": ("run", "reindex"),
    "ticket": ("bind", "ticket"),
    "keep": ("keep_receipt", "keep_links", "keep_error", "keep"),
    "calls": ("read", "calls"),
    "lib": (),
}
"""By file, the names by which a test calls it."""


def draw() -> list[Mutation]:
    """The mistakes that are tried. A change of one line changes none of the others."""
    files: defaultdict[str, list[tuple[int, Mutation]]] = defaultdict(list)
    for one in list_mutations(SOURCES):
        files[one.file].append((int(hashlib.sha256(one.name.encode()).hexdigest()[:8], 16), one))
    return [
        one
        for ranked in files.values()
        for place, (rank, one) in enumerate(sorted(ranked, key=lambda pair: pair[0]))
        if place < LEAST or rank < 2**32 / SHARE
    ]


def test_enough_mistakes_are_tried() -> None:
    """At least two hundred mistakes are tried, in every file, and no reason is kept for one that is gone."""
    drawn = draw()
    assert len(drawn) >= 200
    assert {one.file for one in drawn} == SOURCES.keys()
    assert LEDGER.keys() <= {one.name for one in list_mutations(SOURCES)}


@pytest.mark.soak
@pytest.mark.skipif(not is_soak(), reason="part of the soak profile")
@pytest.mark.parametrize("part", range(PARTS))
def test_mistakes_in_the_ledger_are_found_out(part: int, tmp_path: Path) -> None:
    """Each mistake fails a test, unless a reason is written down why it is none."""
    wrong = {one.name: (one.file, one.apply(SOURCES[one.file])) for one in draw()[part::PARTS]}
    ends = run_mutants(Job(TESTS, wrong, near=NEAR), tmp_path)
    assert len(ends) == len(wrong)
    assert [one.name for one in ends if one.killer is None and not one.is_late and one.name not in LEDGER] == []
