"""A test of the tests: small mistakes in the code that decides on money, keys and foreign addresses."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutation.survivors import PYTHON
from tests.support.ledgers import is_soak
from tests.support.mutation_runner import ROOT, Job, run_mutants
from tests.support.python_mutations import PythonMutation, list_python_mutations

SCORE = 0.95
"""The least share of mistakes that are found; those in the list of survivors change nothing, and do not count."""

MOST = 80
"""Mistakes of one module that are tried, always the same ones."""


@dataclass(frozen=True)
class Module:
    """A module, the tests that own its promises, and the places in it that count; all, where none is named."""

    name: str
    tests: tuple[str, ...]
    places: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return ROOT / f"{self.name.replace('.', '/')}.py"

    def draw(self) -> list[PythonMutation]:
        """The mistakes that are tried. A change of one function changes none of the others."""
        found = [
            one
            for one in list_python_mutations(self.path.read_text())
            if not self.places or one.place.partition(".")[0] in self.places
        ]
        return sorted(found, key=lambda one: hashlib.sha256(one.name.encode()).digest())[:MOST]


MODULES = (
    Module("gateway.upstreams.verdict", ("tests/upstreams/test_verdict.py",)),
    Module("gateway.net.fetcher", ("tests/net/test_fetcher.py", "tests/net/test_fetcher_refusals.py")),
    Module("gateway.process.addresses", ("tests/process/test_addresses.py", "tests/callers/test_caller.py")),
    Module(
        "gateway.callers.auth",
        ("tests/callers/test_caller.py", "tests/callers/test_key_cache.py", "tests/callers/test_wrong_keys.py"),
    ),
    Module(
        "gateway.net.outside_text",
        ("tests/net/test_mask_bounds.py", "tests/net/test_outside_text.py", "tests/catalogue/test_mask.py"),
        ("Mask", "_spellings", "_fold", "_words", "_unescape", "_replace", "_is_ip"),
    ),
)


@pytest.mark.soak
@pytest.mark.skipif(not is_soak(), reason="part of the soak profile")
def test_reasons_are_of_mistakes() -> None:
    """No reason is kept for a mistake that is gone."""
    known = {
        f"{module.name} {one.name}" for module in MODULES for one in list_python_mutations(module.path.read_text())
    }
    assert PYTHON.keys() <= known


@pytest.mark.soak
@pytest.mark.skipif(not is_soak(), reason="part of the soak profile")
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_mistakes_are_found_out(module: Module, tmp_path: Path) -> None:
    """Of the mistakes in a module its own tests find 95 in 100."""
    path, drawn = str(module.path), module.draw()
    wrong = {one.name: (path, one.text) for one in drawn if f"{module.name} {one.name}" not in PYTHON}
    ends = run_mutants(Job(module.tests, wrong, module.name), tmp_path)
    survivors = [one.name for one in ends if one.killer is None and not one.is_late]
    assert len(ends) == len(wrong)
    assert len(survivors) <= (1 - SCORE) * len(wrong), survivors
