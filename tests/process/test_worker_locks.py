"""Who of a data folder's workers is dead is known by a lock, which ends with its process and with nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gateway.process.worker_locks import WorkerLocks
from tests.support.processes import until

LIVE = """
import pathlib, sys, time
from gateway.process.worker_locks import WorkerLocks
WorkerLocks(pathlib.Path(sys.argv[1]), "worker_other").acquire()
print("tied", flush=True)
time.sleep(60)
"""


def test_dead_worker_is_known(tmp_path: Path) -> None:
    """A worker that was killed is dead at once, one that is only stopped lives, and a dead one is told of once."""
    own = WorkerLocks(tmp_path / "workers", "worker_own")
    own.acquire()
    other = subprocess.Popen([sys.executable, "-c", LIVE, str(tmp_path / "workers")], stdout=subprocess.PIPE, text=True)
    assert other.stdout
    assert other.stdout.readline() == "tied\n"
    other.send_signal(signal.SIGSTOP)
    assert own.find_dead() == []
    # It lives, but who may wait for it to turn its loop waits in vain.
    assert own.find_living(since=0) == ["worker_other"]
    assert own.find_living(since=time.time_ns()) == []
    other.kill()
    other.wait()
    other.stdout.close()
    assert until(own.find_dead) == ["worker_other"]
    assert own.find_living(since=0) == []
    own.forget(["worker_other"])
    assert own.find_dead() == []
    own.release()


def test_end_in_order_is_no_death(tmp_path: Path) -> None:
    """A worker that ended in order is free to be adopted, but was not killed; one without a trace of its end was."""
    own, ended = (WorkerLocks(tmp_path / "workers", f"worker_{number}") for number in range(2))
    own.acquire()
    ended.acquire()
    ended.release()
    (tmp_path / "workers" / "worker_killed").touch()
    assert sorted(own.find_dead()) == ["worker_1", "worker_killed"]
    assert own.find_killed(own.find_dead()) == ["worker_killed"]
    own.release()


def test_nobody_has_died_in_a_new_folder(tmp_path: Path) -> None:
    """Where nobody was tied yet nobody is dead, and one that was cut is dead to its successor."""
    former, adopter = (WorkerLocks(tmp_path / "workers", f"worker_{number}") for number in range(2))
    assert former.find_dead() == []
    former.acquire()
    adopter.acquire()
    assert adopter.find_dead() == []
    former.release()
    assert adopter.find_dead() == ["worker_0"]
    adopter.release()


def test_turning_loop_is_known(tmp_path: Path) -> None:
    """A worker is one whose loop turns from each of its beats on, and no longer than it lives."""
    own, other = (WorkerLocks(tmp_path / "workers", f"worker_{number}") for number in range(2))
    own.acquire()
    other.acquire()
    asked = time.time_ns()
    os.utime(tmp_path / "workers" / "worker_1", ns=(0, 0))
    assert own.find_living(since=asked) == []
    other.touch()
    assert own.find_living(since=asked) == ["worker_1"]
    other.touch(asked - 1)
    assert own.find_living(since=asked) == []
    other.release()
    other.touch()
    assert own.find_living(since=0) == []
    own.release()
