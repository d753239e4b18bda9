"""A gateway in demo mode and its simulator, as processes of their own, which the customers' own libraries drive."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gateway.process.children import spawn, stop
from tests.support import processes
from tests.support.processes import clean_environment, until
from tests.support.sdk_clients import AsyncDriver, SyncDriver
from tests.support.sdk_views import Gateway, Simulator, draw

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

_LISTENING = re.compile(r"simulator listening on (http://\S+)\n")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vendor_refuses: the vendor answers 400, which no other test may provoke")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    served = getattr(item, "funcargs", {}).get("served")
    if report.failed and served is not None:
        report.sections.append(("gateway's log", served.err[-4000:]))
    return report


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    path = tmp_path_factory.mktemp("simulator") / "out"
    # A file, not a pipe, which would stop the process once it is full.
    with path.open("wb") as out:
        process = spawn(
            [sys.executable, "-m", "gateway.simulator", "--port", "0", "--latency", "0.05"],
            dies_by=signal.SIGTERM,
            env=clean_environment(),
            stdout=out,
            stderr=out,
        )
    try:
        found = until(lambda: _LISTENING.search(path.read_text()) or process.poll() is not None, what="the simulator")
        assert isinstance(found, re.Match), path.read_text()
        yield Simulator(found[1])
    finally:
        stop(process, 5)


@pytest.fixture(scope="session")
def served(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Gateway]:
    data = tmp_path_factory.mktemp("gateway") / "data"
    with processes.gateway(data, GATEWAY_SIMULATOR_URL=simulator.url) as run:
        until(lambda: run.status("/readyz") == 200, what="readiness")
        yield run
        assert run.end(signal.SIGTERM) == 0


@pytest.fixture(scope="session")
def gateway(served: processes.Gateway) -> Gateway:
    return Gateway(f"{served.url}/v1", (served.data / "demo.key").read_text().strip())


@pytest.fixture(autouse=True)
def vendors(request: pytest.FixtureRequest, simulator: Simulator, served: processes.Gateway) -> Iterator[Simulator]:
    """The simulator with nothing written down; after the test it must have seen documented requests only."""
    simulator.reset()
    yield simulator
    seen = simulator.log()
    assert [(one["path"], one["undocumented"]) for one in seen if one["undocumented"]] == []
    if request.node.get_closest_marker("vendor_refuses") is None:
        assert [(one["path"], one["refusal"]) for one in seen if one["status"] == 400] == []


@pytest.fixture(scope="session", params=[SyncDriver, AsyncDriver], ids=["sync", "async"])
def sdk(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[Any]:
    driver = request.param(gateway)
    yield driver
    driver.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four references and a mask, all PNG and of one size."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(("first", "second", "third", "fourth")):
        (folder / f"{name}.png").write_bytes(draw(40 + 60 * number))
    (folder / "mask.png").write_bytes(draw(200, "RGBA"))
    return folder
