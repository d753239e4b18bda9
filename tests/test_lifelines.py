"""Who of a data folder's workers is dead is known by a lock, which ends with its process and with nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from gateway.lifelines import Lifelines
from tests.running import until

LIVE = """
import pathlib, sys, time
from gateway.lifelines import Lifelines
Lifelines(pathlib.Path(sys.argv[1]), "worker_other").tie()
print("tied", flush=True)
time.sleep(60)
"""


def test_dead_worker_is_known(tmp_path: Path) -> None:
    """A worker that was killed is dead at once, one that is only stopped lives, and a dead one is told of once."""
    own = Lifelines(tmp_path / "workers", "worker_own")
    own.tie()
    other = subprocess.Popen([sys.executable, "-c", LIVE, str(tmp_path / "workers")], stdout=subprocess.PIPE, text=True)
    assert other.stdout
    assert other.stdout.readline() == "tied\n"
    other.send_signal(signal.SIGSTOP)
    assert own.find_dead() == []
    other.kill()
    other.wait()
    other.stdout.close()
    assert until(own.find_dead) == ["worker_other"]
    own.forget(["worker_other"])
    assert own.find_dead() == []
    own.cut()


def test_nobody_has_died_in_a_new_folder(tmp_path: Path) -> None:
    """Where nobody was tied yet nobody is dead, and one that was cut is dead to its successor."""
    former, heir = (Lifelines(tmp_path / "workers", f"worker_{number}") for number in range(2))
    assert former.find_dead() == []
    former.tie()
    heir.tie()
    assert heir.find_dead() == []
    former.cut()
    assert heir.find_dead() == ["worker_0"]
    heir.cut()
