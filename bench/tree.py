"""The processor time and the resident memory of a process and all its children. Linux only.

Reads `/proc`. Never attaches to a process, so that the measurement costs it nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from bench.resident_memory import EVERY_S, resident

_TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its present descendants."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (thread / "children").read_text(encoding="ascii").split()
        except OSError:
            continue
        for child in children:
            found += family(int(child))
    return found


def words(pid: int) -> bytes:
    """The command by which a process was started."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time that processes have taken, in user mode and in the kernel."""
    return sum(_cpu(pid) for pid in pids)


def _cpu(pid: int) -> float:
    # The kernel scales these to what its scheduler summed up in nanoseconds, threads that have ended included.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Growth:
    """While entered, follows the resident memory of some processes together; `most` is its peak."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = tuple(pids)
        self.most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="growth", daemon=True)

    def __enter__(self) -> Growth:
        self.most = self._sum()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.most = max(self.most, self._sum())

    def _sum(self) -> int:
        total = 0
        for pid in self._pids:
            try:
                total += resident(pid)
            except OSError:
                continue
        return total
