"""The holder of the admin token, at a gateway whose admin API is on."""

from __future__ import annotations

import pytest

from tests.admin.office import Office, open_office
from tests.served import Gateways


@pytest.fixture
def office(gateways: Gateways) -> Office:
    return open_office(gateways)
