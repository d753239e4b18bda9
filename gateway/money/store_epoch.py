"""The store epoch: by it a process finds out that the store was emptied or restored from an older copy.

The epoch of an embedded store is also in a file of the data folder. Never writes to the store.
"""

from __future__ import annotations

from pathlib import Path

from gateway.process.data_folder import replace
from gateway.store.client import StoreUnavailable
from gateway.store.windows import MICROSECONDS

LEDGER_ID = "ledger.id"
"""The file in a data folder that holds the epoch of its embedded store."""

NO_MEMORY = ("", "", "")
"""The words of a process that spends nothing, and needs no check."""


class StoreEpoch:
    """The epoch that the process of `worker` knows; `path` is the file in the data folder of an embedded store."""

    def __init__(self, worker: str, path: Path | None = None, lease_s: float = 15.0) -> None:
        self.worker = worker
        self.lease_us = round(lease_s * MICROSECONDS)
        self._path = path
        self._kept = "" if path is None else read_kept(path)
        self._epoch, self._since = _parse(self._kept)
        self._ends: tuple[int, ...] = ()

    @property
    def epoch(self) -> str:
        """The epoch's id; empty before the first renewal of the lease."""
        return self._epoch

    def words(self) -> tuple[str, str, str]:
        """The epoch, the worker and the end of its lease before the last renewal, as arguments of scripts."""
        if not self._epoch:
            return NO_MEMORY
        # A fail-over may lose the last renewal, so that one does not count.
        return self._epoch, self.worker, str(self._ends[0]) if len(self._ends) == 2 else ""

    def record_renewal(self, epoch: str, now: int, stop: int) -> None:
        """Note that the store prolonged the lease. Raises StoreUnavailable if the epoch's file cannot be written."""
        self._keep(epoch)
        self._epoch, _ = _parse(epoch)
        self._since = now
        self._ends = (*self._ends, stop)[-2:]

    def accept_reset(self, epoch: str) -> bool:
        """Take a new epoch if an operator has accepted the store since the last renewal; True if so."""
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
    """The epoch in a data folder's file; empty if there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def keep(path: Path, epoch: str) -> None:
    """Write the epoch to a data folder's file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace(path, epoch)


def _parse(epoch: str) -> tuple[str, int]:
    """The id of an epoch and its begin in µs; for other text an id that no store has."""
    match epoch.split():
        case []:
            return "", 0
        case [found, _, since] if since.isascii() and since.isdigit():
            return found, int(since)
        case _:
            return "epoch_" + "0" * 26, 0
