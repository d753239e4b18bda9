"""A test of the tests: each careless ledger is found out by them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ledgers import MUTANT, MUTANTS, is_soak

SUITE = ("test_ledger.py", "test_ledger_model.py")
SPECIAL = {
    "hold listed for ever": ("test_ledger_looks.py", "test_ledger_model.py"),
    **dict.fromkeys(
        (
            "no fingerprint",
            "two claimants",
            "other request replayed",
            "picture given twice",
            "keyed and unkeyed meet",
            "closed answer claimable for ever",
            "nobody ever leaves",
        ),
        ("test_ledger_joining.py", "test_ledger_model.py"),
    ),
    "claim ends with its seconds": ("test_ledger_joining.py",),
    "any store believed": ("test_store_epoch.py",),
    "loss covered up": ("test_store_epoch.py",),
    "lease moves back": ("test_store_epoch.py",),
    "total always believed": ("test_audit.py",),
    "repair not written": ("test_audit.py",),
}
CASES = [(mutant, part) for mutant in MUTANTS for part in SPECIAL.get(mutant, SUITE)]


@pytest.mark.soak
@pytest.mark.skipif(not is_soak(), reason="part of the soak profile")
@pytest.mark.parametrize(("mutant", "part"), CASES)
def test_careless_ledger_is_found_out(mutant: str, part: str) -> None:
    """Each mistake that a ledger could be written with fails the promises, and by itself the model too."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", f"tests/money/{part}"],
        env=os.environ | {MUTANT: mutant},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # 1 is "tests failed"; any other end would be a mistake of this test.
    assert run.returncode == 1, run.stdout[-2000:]
