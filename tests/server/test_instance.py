"""An instance outlives its disk, its descriptors and its processes' ends, idle and under load."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.instance import UNPRIVILEGED, Instance, Load, full_disk, judge, limited, small_disk
from tests.support.ledgers import is_soak
from tests.support.processes import is_alive, until
from tests.support.simulators import Simulator

pytestmark = [pytest.mark.soak, pytest.mark.skipif(not is_soak(), reason="part of the soak profile")]

LASTS_S = 12.0
"""Seconds that a shortage lasts: several starts of each child meet it."""

BACK_S = 60.0

Shortage = Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["disk", "descriptors", "processes"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, simulator: Simulator) -> Iterator[tuple[Instance, Shortage]]:
    """An instance, and a shortage that it can meet."""
    simulator.fault("latency", seconds=0.5, times=None)
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path / "disk"))
        user = UNPRIVILEGED if request.param == "processes" else None
        if user is not None:
            os.chown(disk, user, user)
        instance = Instance(disk, simulator, user=user)
        stack.callback(instance.close)
        shortages: dict[str, Shortage] = {
            "disk": lambda: full_disk(disk),
            # Fewer than each process has open: none can open another one.
            "descriptors": lambda: limited(instance, "nofile", 5),
            "processes": lambda: limited(instance, "nproc", 1),
        }
        yield instance, shortages[request.param]


@pytest.mark.parametrize("killed", [(), ("valkey-server",), ("gateway.server.worker",), ("valkey-server", "gateway")])
@pytest.mark.parametrize("is_loaded", [False, True], ids=["idle", "loaded"])
def test_instance_comes_back(scene: tuple[Instance, Shortage], killed: tuple[str, ...], is_loaded: bool) -> None:
    """After a shortage, in which its store or its worker may die, an instance serves again by itself, nothing lost."""
    instance, shortage = scene
    load = Load(instance)
    load.ask("before")
    with load.running() if is_loaded else contextlib.nullcontext():
        time.sleep(1)
        with shortage():
            time.sleep(1)
            for word in killed:
                instance.kill(word)
            time.sleep(LASTS_S)
            assert is_alive(instance.pid), instance.err
        until(instance.is_ready, within=BACK_S, what=f"readiness\n{instance.err[-3000:]}")
        time.sleep(1)
    load.ask("after")
    judge(instance, load)
    if "gateway" not in "".join(killed):
        assert load.lost == []
    assert instance.end(within=30) == 0
    assert "Traceback" not in instance.err
