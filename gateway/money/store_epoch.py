"""What one process remembers of the store: by it a store is noticed that was emptied, or is an older copy of itself.

Asked by `store.ledger` before anything is spent. Keeps the epoch in a file where the store is a data folder's own, so
that it outlives the process; never writes to the store.
"""

from __future__ import annotations

from pathlib import Path

from gateway.process.data_folder import replace
from gateway.store.client import StoreUnavailable
from gateway.store.windows import MICROSECONDS

LEDGER_ID = "ledger.id"
"""The file in a data folder that remembers its own store's epoch."""

NO_MEMORY = ("", "", "")
"""What a process says that spends nothing, and need not care."""


class StoreEpoch:
    """The memory of the process that runs `worker`; `path` is the file of a data folder that has a store of its own."""

    def __init__(self, worker: str, path: Path | None = None, lease_s: float = 15.0) -> None:
        self.worker = worker
        self.lease_us = round(lease_s * MICROSECONDS)
        self._path = path
        self._kept = "" if path is None else read_kept(path)
        self._epoch, self._since = _parse(self._kept)
        self._ends: tuple[int, ...] = ()

    @property
    def epoch(self) -> str:
        """The epoch's id; nothing before the first meeting."""
        return self._epoch

    def words(self) -> tuple[str, str, str]:
        """The epoch, the worker and the end that its lease had before its last renewal, as scripts take them."""
        if not self._epoch:
            return NO_MEMORY
        # A fail-over may lose what was written last, hence one renewal: that alone is no reason to stop.
        return self._epoch, self.worker, str(self._ends[0]) if len(self._ends) == 2 else ""

    def meet(self, epoch: str, now: int, stop: int) -> None:
        """The store prolonged the lease. Raises StoreUnavailable when its epoch cannot be kept."""
        self._keep(epoch)
        self._epoch, _ = _parse(epoch)
        self._since = now
        self._ends = (*self._ends, stop)[-2:]

    def forgive(self, epoch: str) -> bool:
        """Whether an operator has accepted the store since it was last known to be right: if so, it is known anew."""
        found, since = _parse(epoch)
        if found == self._epoch or " accepted " not in epoch or since <= self._since:
            return False
        self._keep(epoch)
        self._epoch, self._since, self._ends = found, since, ()
        return True

    def _keep(self, epoch: str) -> None:
        if self._path is None or epoch == self._kept:
            return
        try:
            keep(self._path, epoch)
        except OSError as error:
            raise StoreUnavailable(f"{self._path} cannot be written: {error.strerror}") from error
        self._kept = epoch


def read_kept(path: Path) -> str:
    """The epoch that a data folder remembers; nothing if it is new."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def keep(path: Path, epoch: str) -> None:
    """Let a data folder remember its store's epoch. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace(path, epoch)


def _parse(epoch: str) -> tuple[str, int]:
    """An epoch's id, and since when it is one in µs; of anything else an id that no store has."""
    match epoch.split():
        case []:
            return "", 0
        case [found, _, since] if since.isascii() and since.isdigit():
            return found, int(since)
        case _:
            return "epoch_" + "0" * 26, 0
