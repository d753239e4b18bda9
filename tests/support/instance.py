"""One instance with an embedded store, its clients, and the shortages of a machine: disk, descriptors, processes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import yaml
from typing_extensions import override

from tests.support.gateways import ENV, GENERATIONS, TASKS, TIMEOUTS, catalogue_of, small
from tests.support.processes import Gateway, children, clean_environment, is_alive, until
from tests.support.simulators import Simulator

AT_ONCE = 6
PAUSE_S = 0.3
"""An SDK's pause between two tries."""

UNPRIVILEGED = 61234
"""A user without an entry and without other processes, whose number of processes can be limited."""


class Instance(Gateway):
    """`imagegate serve` over one folder, whose upstreams the simulator plays."""

    def __init__(self, folder: Path, simulator: Simulator, *, user: int | None = None) -> None:
        self.simulator = simulator
        timeouts = {"timeouts": TIMEOUTS | {"call": 60, "task": 120, "poll": 5, "collect": 60}}
        changes = {
            "upstreams": dict.fromkeys(("anyfast", "anyfast-c", "apiany"), timeouts),
            "accounting": {"lease": 3},
            "join": {"look_every": 0.5},
            "limits": {"min_free": 0},
        }
        self._env = {**ENV, "GATEWAY_CONFIG": str(folder / "gateway.yaml"), "GATEWAY_DRAIN_S": "20"}
        (folder / "gateway.yaml").write_text(yaml.safe_dump(catalogue_of(simulator.url, changes)))
        self._as_user = [] if user is None else _become(user)
        super().__init__(folder / "data", ("--port", "0"), **self._env)
        try:
            self.wait_ready()
            self.key = self.command("keys", "create", "test").stdout.split()[-1]
        except BaseException:
            self.close()
            raise

    @override
    def start(self, arguments: Sequence[str], env: dict[str, str], streams: tuple[int, int, int]) -> Any:
        """Not forked from this process, since it may run as another user."""
        command = [*self._as_user, sys.executable, "-m", "gateway", *arguments]
        stdin, stdout, stderr = streams
        return subprocess.Popen(command, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the operator on this instance, to its end."""
        done = subprocess.run(
            [*self._as_user, sys.executable, "-m", "gateway", *arguments],
            # Not --data-dir: the option's check of the path asks access(2), which knows no capabilities.
            env=clean_environment(**self._env, GATEWAY_DATA_DIR=str(self.data)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    def processes(self) -> list[int]:
        return [self.pid, *children(self.pid)]

    def read_limit(self, limit: str) -> str:
        """The soft limit of the first process."""
        command = [
            *self._as_user,
            "prlimit",
            f"--pid={self.pid}",
            f"--{limit}",
            "--output=SOFT",
            "--noheadings",
            "--raw",
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def set_limit(self, limit: str, value: str) -> None:
        """Set the soft limit of each process, as their own user; some may end meanwhile."""
        for pid in self.processes():
            command = [*self._as_user, "prlimit", f"--pid={pid}", f"--{limit}={value}:"]
            subprocess.run(command, check=pid == self.pid, capture_output=True)

    def kill(self, word: str) -> None:
        """Kill the children whose command lines have the word; some may be dead already."""
        for pid, line in children(self.pid).items():
            if word in line and is_alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def is_ready(self) -> bool:
        return self.status("/readyz") == 200

    def buy(self, client: httpx.Client, prompt: str, count: int) -> httpx.Response | None:
        """One try of a request for a picture; None where the connection broke."""
        headers = {"authorization": f"Bearer {self.key}", "x-stainless-retry-count": str(count)}
        fields = small(prompt=prompt, model=TASKS, size="1024x1024")
        with contextlib.suppress(httpx.TransportError):
            return client.post(self.url + GENERATIONS, json=fields, headers=headers)
        return None


class Load:
    """Clients that ask for one picture after another, and try again wherever an SDK would."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self.delivered: list[str] = []
        self.lost: list[str] = []
        """Prompts that ended with a 424: the vendor may have been paid for nothing."""

        self.seen: set[int] = set()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Ask during the block; on its exit each request has ended."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            working = [threads.submit(self._work) for _ in range(AT_ONCE)]
            try:
                yield
            finally:
                self._is_over.set()
            for each in working:
                each.result()

    def ask(self, prompt: str) -> None:
        """Ask until the request has ended."""
        with httpx.Client(timeout=60, trust_env=False, verify=False) as client:
            for count in range(1000):
                answer = self._instance.buy(client, prompt, count)
                if answer is not None:
                    self.seen.add(answer.status_code)
                    if answer.status_code in (200, 424):
                        (self.delivered if answer.status_code == 200 else self.lost).append(prompt)
                        return
                time.sleep(PAUSE_S)
        raise AssertionError(f"{prompt} never ended; seen: {self.seen}")

    def _work(self) -> None:
        while not self._is_over.is_set():
            self.ask(f"cat {next(self._numbers)}")


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "24m") -> Iterator[Path]:
    """A file system of its own. Fails where mounts are refused."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"a small disk needs the right to mount (root, or `unshare -rm`): {done.stderr}"
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def full_disk(disk: Path) -> Iterator[None]:
    """No free byte on the disk in this context."""
    filler = disk / "filler"
    is_over = threading.Event()

    def fill() -> None:
        # Whatever becomes free meanwhile is taken too.
        with filler.open("ab", buffering=0) as file:
            while not is_over.wait(0.01):
                for size in (2**20, 2**12, 1):
                    with contextlib.suppress(OSError):
                        while file.write(b"\0" * size) == size and not is_over.is_set():
                            pass

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        filler.unlink()


@contextlib.contextmanager
def limited(instance: Instance, limit: str, value: int) -> Iterator[None]:
    """A soft limit of every process of the instance, as `ulimit` sets it; those that start meanwhile inherit it.

    `limit` is a name of prlimit(1), such as `nofile`.
    """
    before = instance.read_limit(limit)
    instance.set_limit(limit, str(value))
    try:
        yield
    finally:
        instance.set_limit(limit, before)


def judge(instance: Instance, load: Load) -> None:
    """Nothing was bought twice, each purchase is delivered or explained, and the ledger agrees with the vendor."""
    book = [one for one in instance.simulator.book() if not one["refunded"]]
    prompts = [one["prompt"] for one in book]
    assert len(prompts) == len(set(prompts)), "bought twice"
    assert set(load.delivered) <= set(prompts)
    assert set(prompts) <= {*load.delivered, *load.lost}
    until(lambda: not json.loads(instance.command("holds", "--json").stdout)["data"], what="the last settlement")
    instance.command("audit")


def _become(user: int) -> list[str]:
    # The interpreter may lie in a folder that only root may read.
    rights = ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *rights]
