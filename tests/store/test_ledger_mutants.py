"""A test of the tests: each careless ledger is found out by them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.ledgers import MUTANT, MUTANTS, is_soak

SUITE = ("tests/store/test_ledger.py", "tests/store/test_ledger_model.py")


@pytest.mark.soak
@pytest.mark.skipif(not is_soak(), reason="part of the soak profile")
@pytest.mark.parametrize("part", SUITE)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_careless_ledger_is_found_out(mutant: str, part: str) -> None:
    """Each mistake that a ledger could be written with fails the promises, and by itself the model too."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", part],
        env=os.environ | {MUTANT: mutant},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # 1 is "tests failed"; any other end would be a mistake of this test.
    assert run.returncode == 1, run.stdout[-2000:]
