"""The starts of paid answers that could not be read, as files for the operator. Bounded in size and number.

A file holds no secret of this process and no inner address, so that it can be passed on to the vendor.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import structlog

from gateway.net.outside_text import Mask
from gateway.upstreams.verdict import Failure

MOST_FILES = 50

_MOST_LETTERS = 20_000

_log = structlog.get_logger(__name__)


class UnreadAnswers:
    """The files of kept answers in `folder`. A new file removes the oldest ones, so that at most `most` stay."""

    def __init__(self, folder: Path, mask: Mask, most: int = MOST_FILES) -> None:
        self._folder = folder
        self._mask = mask
        self.most = most

    async def keep(self, label: str, call: str, failure: Failure) -> None:
        """Write the start of the answer that a failure holds to a file, and log the file's name.

        Without a start nothing is written. If the file cannot be written, that is logged, and nothing is raised.
        """
        if not failure.start:
            return
        text = "\n".join(
            self._mask.clean(line, _MOST_LETTERS)
            for line in failure.start.decode("utf-8", errors="backslashreplace").splitlines()
        )
        facts = f"upstream: {label}\ncall: {call}\nstatus: {failure.status}\nreason: {failure.message}\n\n"
        try:
            path = await asyncio.to_thread(self._write, f"{time.time_ns() // 1000}-{call}.txt", facts + text)
        except OSError as error:
            _log.warning("an unreadable answer could not be kept", call=call, reason=os.strerror(error.errno or 0))
            return
        _log.warning("an upstream's answer could not be read; its start is kept", upstream=label, call=call, file=path)

    def _write(self, name: str, text: str) -> str:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(self._folder.glob("*.txt"))[: -self.most + 1 or None]:
            old.unlink(missing_ok=True)
        path = self._folder / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        return str(path)
