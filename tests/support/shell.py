"""The command line over one store: what is typed, what it answers, and what it left behind.

Commands run one after the other in one process of their own: to start Python takes most of a second, and in the tests'
own process the log of a gateway that serves there would mix with what they print.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.callers.key_store import KeyStore
from gateway.catalogue.document import Accounting
from gateway.cli.main import app
from gateway.history.changes import Changes
from gateway.store.client import StoreClient, connect
from tests.conftest import Valkey
from tests.support.processes import clean_environment

SECRET = "s" * 32
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Typed:
    """How a command ended; `output` is all that a terminal would have shown."""

    exit_code: int
    stdout: str
    stderr: str
    output: str


class Typist:
    """The process that commands run in."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.shell"],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def type(self, words: tuple[str, ...], env: dict[str, str]) -> Typed:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([words, env]) + "\n")
        self._process.stdin.flush()
        return Typed(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate(timeout=10)


class Shell:
    """Commands over one store."""

    def __init__(self, typist: Typist, valkey: Valkey, folder: Path) -> None:
        self.url = valkey.url
        self.env = {
            "GATEWAY_REDIS_URL": valkey.url,
            "GATEWAY_KEY_PEPPER": SECRET,
            "GATEWAY_SIGNING_KEY": SECRET,
            "GATEWAY_DATA_DIR": str(folder),
        }
        self._typist = typist

    def type(self, *words: str) -> Typed:
        return self._typist.type(words, self.env)

    def ask(self, *words: str) -> Any:
        """What a command that works prints as JSON."""
        done = self.type(*words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def look(self, work: Callable[[StoreClient], Awaitable[Any]]) -> Any:
        """What is found in the store itself."""

        async def run() -> Any:
            redis = connect(self.url)
            try:
                return await work(redis)
            finally:
                await redis.aclose()

        return asyncio.run(run())

    def is_known(self, secret: str) -> bool:
        return self.look(lambda redis: KeyStore(redis, SECRET.encode()).lookup(secret)) is not None

    def log(self) -> list[tuple[str, str, str]]:
        """Who changed what, oldest first."""
        changes = self.look(lambda redis: Changes(redis, Accounting()).read())
        return [(one.actor, one.action, one.subject) for one in reversed(changes)]


@pytest.fixture(scope="session")
def typist() -> Iterator[Typist]:
    made = Typist()
    yield made
    made.close()


@pytest.fixture
def shell(typist: Typist, valkey: Valkey, tmp_path: Path) -> Shell:
    return Shell(typist, valkey, tmp_path)


def serve() -> None:
    """Run each command that is asked for, until nobody asks any more."""
    for line in sys.stdin:
        words, env = json.loads(line)
        done = CliRunner().invoke(app, words, env=env)
        is_clean = isinstance(done.exception, SystemExit | None)
        fault = "" if is_clean else "".join(traceback.format_exception(done.exception))
        sys.stdout.write(json.dumps([done.exit_code, done.stdout, done.stderr, done.output + fault]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
