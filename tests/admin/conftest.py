"""The holder of the admin token, at a gateway whose admin API is on."""

from __future__ import annotations

import pytest

from tests.support.gateways import Gateways
from tests.support.operator_client import Office, open_office


@pytest.fixture
def office(gateways: Gateways) -> Office:
    return open_office(gateways)
