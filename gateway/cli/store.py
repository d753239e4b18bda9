"""The store as a command opens it, whether or not a gateway runs, and how commands show what they found.

Shared by the commands that work on the store itself: GATEWAY_REDIS_URL, else the data folder's server, started for as
long as the command takes. Needs no token: whoever may read the data folder may do everything.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.callers.key_store import KeyStore
from gateway.catalogue import catalogue
from gateway.catalogue.document import Document
from gateway.history.changes import Changes
from gateway.history.history import History
from gateway.history.usage import UsageReader
from gateway.money.ledger import Ledger
from gateway.process.data_folder import DataFolder, FolderInUse, load_secrets
from gateway.process.settings import Settings, StartRefused, load_settings, variable
from gateway.store.client import StoreClient, StoreUnavailable, connect
from gateway.store.command_queue import CommandQueue
from gateway.store.embedded import EmbeddedServer, running_url
from gateway.store.windows import Calendar

Result = TypeVar("Result")

_WAIT_S = 10.0
_POLL_S = 0.1

DataDir = Annotated[Path | None, typer.Option(help="The gateway's data folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class OpenedStore:
    """What a command may touch. The catalogue is read only by those that ask for its document."""

    def __init__(self, settings: Settings, url: str, redis: StoreClient, command_queue: CommandQueue) -> None:
        self.settings = settings
        self.url = url
        self.redis = redis
        self.command_queue = command_queue

    @cached_property
    def document(self) -> Document:
        """Raises CatalogueError."""
        return catalogue.read(self.settings.config)

    @cached_property
    def keys(self) -> KeyStore:
        """The keys; whoever makes or reads secrets calls `check_pepper` first."""
        return KeyStore(self.redis, load_secrets(self.settings).pepper)

    @property
    def signing_key(self) -> bytes:
        return load_secrets(self.settings).signing_key

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.command_queue, self.calendar)

    @cached_property
    def calendar(self) -> Calendar:
        return Calendar(self.document.accounting.time_zone)

    @cached_property
    def history(self) -> History:
        return History(self.command_queue, self.redis, self.document.accounting)

    @cached_property
    def usage(self) -> UsageReader:
        return UsageReader(self.redis, self.document.accounting)

    @cached_property
    def changes(self) -> Changes:
        return Changes(self.redis, self.document.accounting)


def running_store(settings: Settings) -> str | None:
    """The URL of the store that the settings name, if it may be asked without starting anything."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return running_url(DataFolder(settings.data_dir))


def with_store(data_dir: Path | None, act: Callable[[OpenedStore], Awaitable[Result]]) -> Result:
    """Do something to the store that the environment, or the data folder, names. Raises StartRefused."""
    env = dict(os.environ) | ({} if data_dir is None else {variable("data_dir"): str(data_dir)})
    settings = load_settings(env)

    async def run() -> Result:
        async with _opened(settings) as url:
            redis, command_queue = connect(url), CommandQueue(url, wait_replicas=settings.redis_wait_replicas)
            try:
                return await act(OpenedStore(settings, url, redis, command_queue))
            finally:
                await command_queue.aclose()
                await redis.aclose()

    try:
        return asyncio.run(run())
    except StoreUnavailable as error:
        raise StartRefused(f"Redis is away: {error}") from error


def cli_actor() -> str:
    """How the log of changes names whoever types a command."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        # A container's user need not have a name.
        return f"cli:{os.getuid()}"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of what a command shows; numbers stand to the right. Details are left out where there is no room."""

    name: str
    is_number: bool = False
    is_detail: bool = False


def print_rows(columns: Sequence[Column], rows: Iterable[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """A table on a terminal, else lines with tabs, which other programs can cut. The total is for people alone."""
    if not sys.stdout.isatty():
        for row in ([column.name for column in columns], *rows):
            typer.echo("\t".join(_plain(cell) for cell in row))
        return
    console, cells = Console(), [[_plain(cell) for cell in row] for row in rows]
    shown = _fit(columns, [[column.name for column in columns], *cells], console.width)
    table = Table(show_footer=total is not None)
    for index in shown:
        column, footer = columns[index], Text(total[index] if total else "")
        # Folded where there is no room: half an id is none.
        table.add_column(column.name, footer, justify="right" if column.is_number else "left", overflow="fold")
    for row in cells:
        # Text, since what callers typed may look like rich's markup.
        table.add_row(*(Text(row[index]) for index in shown))
    console.print(table)


def _fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns to show: all, or without as many details, from the right, as there is no room for."""
    shown = list(range(len(columns)))
    needed = {index: max(len(row[index]) for row in rows) + 3 for index in shown}
    for index in reversed(range(len(columns))):
        if sum(needed[one] for one in shown) + 1 <= width:
            break
        if columns[index].is_detail:
            shown.remove(index)
    return shown


def _plain(cell: str) -> str:
    """A cell without the characters that would move the cursor or the next cell."""
    return "".join(char if char.isprintable() else "?" for char in cell)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[str]:
    """The URL of the store, whose server is started for the time of the context if none runs."""
    if settings.redis_url is not None:
        yield settings.redis_url.get_secret_value()
        return
    folder = DataFolder(settings.data_dir)
    async with AsyncExitStack() as stack:
        yield running_url(folder) or await _start_own(folder, stack)


async def _start_own(folder: DataFolder, stack: AsyncExitStack) -> str:
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            lock = stack.enter_context(folder.locked(wait_s=0))
        except FolderInUse:
            # A gateway that is just starting or stopping: its server will answer soon, or be gone.
            if (url := running_url(folder)) is not None:
                return url
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_S)
        else:
            server = EmbeddedServer(folder, lock)
            process = await server.start()
            stack.callback(server.close, process)
            return server.url
