"""Commands on a terminal, where some print otherwise than into a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from tests.support.processes import clean_environment


def show_on_terminal(env: dict[str, str], *words: str) -> str:
    """What a command prints on a terminal of 80 columns, without its colours."""
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "gateway", *words]
    subprocess.run(command, env=clean_environment(**env, COLUMNS="80"), stdout=writer, check=True, timeout=30)
    os.close(writer)
    shown = b""
    while piece := _read(reader):
        shown += piece
    os.close(reader)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except OSError:
        return b""
