"""Every private address in every form, and names that change between two look-ups, by the system's own resolver."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.ledgers import is_soak
from tests.support.processes import clean_environment
from tests.support.ssrf_addresses import NOT_PUBLIC

WORLD = ["unshare", "--user", "--map-root-user", "--mount", "--net"]


def test_no_private_address_is_reached() -> None:
    """In a network where every private address listens and DNS rebinds, only the public address is ever reached."""
    if subprocess.run([*WORLD, "true"], capture_output=True, check=False).returncode != 0 and not is_soak():
        pytest.skip("this system allows no network of one's own; the long run fails here")
    ended = subprocess.run(
        [*WORLD, sys.executable, "-m", "tests.fuzz.rebinding_world"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    counts = json.loads(ended.stdout)
    assert counts["addresses"] == counts["rebound"] == counts["reached"] == len(NOT_PUBLIC) >= 60
    assert counts["forms"] >= 60 * 30
    # The others (multicast, 0.0.0.0 and the like) belong to no interface.
    assert counts["listening"] >= 50
