"""The data folder: its lock, its secrets, and the records of the processes that run in it. One gateway owns it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gateway.process.settings import Settings, SettingsError, StartRefused

LOCK_WAIT_S = 10.0
"""Seconds that a start waits for a server that still runs after its gateway ended."""

_POLL_S = 0.05
_OTHER_FOLDER = "--data-dir FOLDER, or GATEWAY_DATA_DIR=FOLDER in the environment"


class FolderInUse(StartRefused):
    """Another gateway, or its server, runs in this folder. The text is for users."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The pepper for digests of API keys and operators' tokens, and the signing key for links to pictures and webhooks.

    Both are texts as UTF-8 bytes.
    """

    pepper: bytes
    signing_key: bytes

    def __repr__(self) -> str:
        return "Secrets(…)"


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The socket and the process of this folder's embedded server."""

    pid: int
    socket: Path


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """The gateway that runs in a folder: its process, and its Redis if it is not the folder's own.

    `redis` has no password. `stops_by` is the unix time of the latest end of a stop that has begun, else None.
    """

    pid: int
    redis: str | None = None
    stops_by: float | None = None

    def explain(self, folder: Path) -> str:
        """The message to a user: the reason why no other command can use the folder, and the remedy."""
        it = f"gateway in {folder} (process {self.pid})"
        if self.stops_by is not None:
            left = max(1, math.ceil(self.stops_by - time.time()))
            return (
                f"The {it} is stopping, and ends within {left} s: it waits for paid pictures, which another signal "
                "would abandon. Try again when it has ended"
            )
        if self.redis is not None:
            return (
                f"The {it} uses the Redis at {self.redis}. For a command on its store, set GATEWAY_REDIS_URL, "
                "GATEWAY_KEY_PEPPER and GATEWAY_SIGNING_KEY as they are set for it; for another gateway, use another "
                f"folder: {_OTHER_FOLDER}"
            )
        return (
            f"A gateway already runs in {folder} (process {self.pid}). Stop it (kill {self.pid}), "
            f"or use another folder: {_OTHER_FOLDER}"
        )


class DataFolder:
    """One data folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock_path = path / "lock"
        self.pid_path = path / "gateway.pid"
        self.running_path = path / "gateway.json"
        self.server_path = path / "server.json"
        self.secrets_path = path / "secrets.json"
        self.demo_key_path = path / "demo.key"
        self.catalogue_path = path / "catalogue.json"
        self.simulator_path = path / "simulator.url"

    def make(self) -> None:
        """Create the folder (mode 0700) if it is missing. Raises SettingsError if it cannot be created or written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise SettingsError(
                [f"GATEWAY_DATA_DIR: {self.path} not writable ({error.strerror}); set a folder this process may write"]
            ) from error

    @contextmanager
    def locked(self, wait_s: float = LOCK_WAIT_S) -> Iterator[int]:
        """Create the folder and hold its lock. Yields the lock's descriptor; a child that has it keeps the lock too.

        Raises FolderInUse: at once if a running gateway holds the lock, after `wait_s` seconds if only its children do.
        Raises SettingsError if the folder cannot be written.
        """
        self.make()
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + wait_s
            while not _try_lock(descriptor):
                if (running := self.running_gateway()) is not None:
                    raise FolderInUse(running.explain(self.path))
                if time.monotonic() > deadline:
                    raise FolderInUse(self._left_behind(wait_s))
                time.sleep(_POLL_S)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def announced(self, redis: str | None = None) -> Iterator[None]:
        """Write this process's number to `gateway.pid`, and its Redis (without a password) to `gateway.json`.

        Both are removed when the context ends. Call it with the lock held. `gateway.pid` is locked meanwhile: after a
        crash, or in another container, the number may belong to another process, but the lock ends with its holder.
        Raises OSError.
        """
        with os.fdopen(os.open(self.pid_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            replace(self.running_path, json.dumps({"redis": redis}))
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            try:
                yield
            finally:
                self.pid_path.unlink(missing_ok=True)
                self.running_path.unlink(missing_ok=True)

    def announce_stop(self, redis: str | None, stops_by: float) -> None:
        """Add the latest end of this process's stop, as a unix time, to `gateway.json`. Ignores an OSError."""
        with contextlib.suppress(OSError):
            replace(self.running_path, json.dumps({"redis": redis, "stops_by": stops_by}))

    def running_gateway(self) -> RunningGateway | None:
        """The gateway that runs in this folder, or None."""
        try:
            with self.pid_path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return RunningGateway(_number(file), **self._read_running())
        except FileNotFoundError:
            pass
        return None

    def _read_running(self) -> dict[str, Any]:
        try:
            found = json.loads(self.running_path.read_text())
            return {"redis": found["redis"], "stops_by": found.get("stops_by")}
        except (OSError, ValueError, KeyError, AttributeError):
            return {}

    def has_store(self) -> bool:
        """True when the folder has the files of an embedded server."""
        return any((self.path / name).exists() for name in ("valkey", "ledger.id"))

    def record_catalogue(self, path: Path) -> None:
        """Write the path and the digest of the catalogue with which a gateway starts to the folder. Raises OSError."""
        replace(self.catalogue_path, json.dumps({"path": str(path), "sha256": _digest(path)}) + "\n")

    def compare_catalogue(self, path: Path) -> str | None:
        """The difference between a catalogue and the one that this folder's gateway uses, as a sentence.

        None if there is none, if no gateway runs in this folder, or if a file cannot be read.
        """
        if (running := self.running_gateway()) is None:
            return None
        try:
            found = json.loads(self.catalogue_path.read_text())
            used, digest = str(found["path"]), str(found["sha256"])
            is_same = digest == _digest(path)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        who = f"the gateway that runs in {self.path} (process {running.pid})"
        if used != str(path):
            return None if is_same else f"{who} uses another catalogue, {used}"
        return None if is_same else f"{who} still uses this file as it was at its start; restart it to use the new one"

    def record_server(self, record: ServerRecord) -> None:
        replace(self.server_path, json.dumps({"pid": record.pid, "socket": str(record.socket)}))

    def server(self) -> ServerRecord | None:
        """The recorded embedded server; it may have ended. None without a record, or with one that cannot be read."""
        try:
            found = json.loads(self.server_path.read_text())
            return ServerRecord(int(found["pid"]), Path(found["socket"]))
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def forget_server(self) -> None:
        self.server_path.unlink(missing_ok=True)

    def secrets(self) -> Secrets:
        """This folder's secrets, created if their file is missing. Raises SettingsError for a damaged file, OSError."""
        text = make_once(self.secrets_path, _new_secrets())
        try:
            found = json.loads(text)
            return Secrets(found["pepper"].encode(), found["signing_key"].encode())
        except (ValueError, KeyError, AttributeError) as error:
            raise SettingsError(
                [f"{self.secrets_path}: cannot be read; restore it, since no API key works without its pepper"]
            ) from error

    def find_secrets(self) -> Secrets | None:
        """This folder's secrets; None if it has no file of them, or if that cannot be read. Creates nothing."""
        try:
            return self.secrets() if self.secrets_path.exists() else None
        except (SettingsError, OSError):
            return None

    def _left_behind(self, wait_s: float) -> str:
        record = self.server()
        who = f"process {record.pid}" if record else "a process of its"
        what = f"kill {record.pid}" if record else f"fuser {self.lock_path} names it"
        remedy = f"Stop it: {what}"
        return f"{self.path} is in use: its gateway has ended, but {who} still runs after {wait_s:.0f} s. {remedy}"


def load_secrets(settings: Settings) -> Secrets:
    """Return the pepper and the signing key: from the settings, else the data folder's own, created if it has none.

    Raises SettingsError if the folder cannot be written or its secrets are damaged, OSError if they cannot be read.
    """
    given_pepper, given_key = settings.key_pepper, settings.signing_key
    if given_pepper is not None and given_key is not None:
        return Secrets(given_pepper.get_secret_value().encode(), given_key.get_secret_value().encode())
    folder = DataFolder(settings.data_dir)
    folder.make()
    own = folder.secrets()
    return Secrets(
        own.pepper if given_pepper is None else given_pepper.get_secret_value().encode(),
        own.signing_key if given_key is None else given_key.get_secret_value().encode(),
    )


def make_once(path: Path, text: str) -> str:
    """Return the text of a private file (mode 0600); create it with `text` if it is missing. Raises OSError.

    Two processes that create it at once get the same text.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    aside = _write_aside(path, text)
    try:
        # A link fails if the name exists, so the file is complete from the start and never replaced.
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    return path.read_text()


def record_simulator(folder: DataFolder, url: str | None) -> None:
    """Write the simulator's URL to the folder, for users who change its behaviour; None removes it. Raises OSError."""
    if url is None:
        folder.simulator_path.unlink(missing_ok=True)
    else:
        replace(folder.simulator_path, f"{url}\n")


def replace(path: Path, text: str) -> None:
    """Write a private file (mode 0600), and replace the old one. Raises OSError, and then leaves the old one."""
    aside = _write_aside(path, text)
    try:
        aside.rename(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def open_private(path: Path) -> IO[bytes]:
    """Open a private file (mode 0600) for writing: create it, or delete the content of an old one. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def _write_aside(path: Path, text: str) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        # On a full disk each attempt would leave another file.
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _new_secrets() -> str:
    return json.dumps({"pepper": secrets.token_hex(32), "signing_key": secrets.token_hex(32)}) + "\n"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _number(file: IO[Any]) -> int:
    text = str(file.read()).strip()
    return int(text) if text.isdigit() else 0
