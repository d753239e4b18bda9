"""Both OpenAPI documents, asked by schemathesis: each answer is one that the document has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.gateways import Gateways
from tests.support.ledgers import is_soak
from tests.support.operator_client import API, TOKEN
from tests.support.processes import clean_environment

EXAMPLES = 600


@pytest.mark.soak
@pytest.mark.skipif(not is_soak(), reason="takes minutes; tests/admin/test_random_input.py asks every day")
@pytest.mark.parametrize("path", [f"{API}/openapi.json", "/openapi.json"], ids=["admin", "callers"])
def test_answers_are_as_documented(gateways: Gateways, path: str) -> None:
    """Requests that are right or wrong by the document get answers that it has: status, type, headers and schema."""
    gateway = gateways.open(settings={"admin_token": TOKEN})
    gateway.simulator.fault("status", times=None, status=400, code="refused", endpoint="*")
    token = TOKEN if path.startswith(API) else gateway.key
    if gateway.get(path, headers={"authorization": f"Bearer {token}"}).status_code == 404:
        pytest.skip(f"this gateway serves no {path}")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.schema_run", gateway.url + path, token, str(EXAMPLES)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-6000:]
    assert not gateway.simulator.book()
