"""The resident memory of another process: now, and its peak over a stretch of time. Linux only.

Reads `/proc`. Never attaches to the process, so that the measurement costs it nothing.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

EVERY_S = 0.02
MIB = 2**20

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int:
    """Resident bytes now."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def details(pid: int) -> dict[str, int]:
    """Bytes by kind: anonymous, file-backed, and the number of threads."""
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        if ":" in line
    )
    sizes = {name: int(status[key].split()[0]) * 1024 for name, key in (("anonymous", "RssAnon"), ("files", "RssFile"))}
    return sizes | {"threads": int(status["Threads"])}


class PeakWatch:
    """While entered, follows a process; afterwards `peak` is the most resident bytes it had.

    The kernel's own high-water mark is exact, where it may be set back; sampling finds what lasted 20 ms, and tells
    `half_full`, the seconds during which the memory above the start was more than half of the peak's.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak = self.sampled = 0
        self.is_exact = False
        self._samples: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="peak-watch", daemon=True)

    @property
    def half_full(self) -> float:
        start = self._samples[0]
        return EVERY_S * sum(sample - start > (self.sampled - start) / 2 for sample in self._samples)

    def __enter__(self) -> PeakWatch:
        self.is_exact = _reset_high_water(self.pid)
        self._samples.append(resident(self.pid))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.sampled = max(self._samples)
        self.peak = max(self.sampled, _high_water(self.pid)) if self.is_exact else self.sampled

    def _follow(self) -> None:
        while not self._ended.wait(EVERY_S):
            try:
                self._samples.append(resident(self.pid))
            except OSError:
                return


def _reset_high_water(pid: int) -> bool:
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _high_water(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
