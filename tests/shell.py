"""The command line in this process, over one store: what is typed, what it answers, and what it left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.document import Accounting
from gateway.store.changes import Changes
from gateway.store.client import StoreClient, connect
from gateway.store.keys import KeyStore
from tests.conftest import Valkey

SECRET = "s" * 32


class Shell:
    """Commands over one store."""

    def __init__(self, valkey: Valkey, folder: Path) -> None:
        self.url = valkey.url
        self.env = {
            "GATEWAY_REDIS_URL": valkey.url,
            "GATEWAY_KEY_PEPPER": SECRET,
            "GATEWAY_SIGNING_KEY": SECRET,
            "GATEWAY_DATA_DIR": str(folder),
        }

    def type(self, *words: str) -> Result:
        return CliRunner().invoke(app, list(words), env=self.env)

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


@pytest.fixture
def shell(valkey: Valkey, tmp_path: Path) -> Shell:
    return Shell(valkey, tmp_path)
