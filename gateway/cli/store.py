"""The store that a command works on, with or without a running gateway.

It is the Redis of GATEWAY_REDIS_URL, else the data folder's own server. If that server does not run, it is started for
the time of the command. A folder without a store is refused: only `serve` makes a store. No token is needed: a person
who has the data folder, or the URL of the Redis, may do everything.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from gateway import errors
from gateway.callers.key_store import KeyStore
from gateway.callers.operator_store import OperatorStore
from gateway.callers.webhook_addresses import open_fetcher
from gateway.catalogue import catalogue
from gateway.catalogue.document import Document
from gateway.cli import output
from gateway.cli.options import bad_option
from gateway.errors import PublicError
from gateway.health.drift import DriftBook
from gateway.history.changes import Changes
from gateway.history.history import History
from gateway.history.usage import UsageReader
from gateway.money.ledger import Ledger
from gateway.net.fetcher import Fetcher
from gateway.operations import teams
from gateway.operations.changes import Actor
from gateway.operations.time_spans import open_calendar
from gateway.process.data_folder import DataFolder, FolderInUse, load_secrets
from gateway.process.settings import Settings, StartRefused, load_settings, variable
from gateway.state.webhook_queue import WebhookQueue
from gateway.store.client import CommandQueue, StoreClient, StoreUnavailable, connect
from gateway.store.embedded import EmbeddedServer, running_url
from gateway.store.windows import Calendar

Result = TypeVar("Result")

_WAIT_S = 10.0
_POLL_S = 0.1

_HINTS: Mapping[type[PublicError], str] = {
    errors.KeyNotFound: "`imagegate keys list` shows all keys",
    errors.OperatorNotFound: "`imagegate operators list` shows all operators",
    errors.UpstreamNotFound: "`imagegate upstreams` shows all upstreams",
    errors.WebhookNotFound: "`imagegate webhooks` shows the messages",
}

DataDir = Annotated[Path | None, typer.Option(help="The gateway's data folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class ActionRefused(StartRefused):
    """An operator's action was refused."""


class NoStoreHere(StartRefused):
    """The data folder has no store. The text names the folder."""


class OpenedStore:
    """The stores of one command. Each part but Redis opens when it is first read.

    Many commands never read the catalogue.
    """

    def __init__(self, settings: Settings, url: str, redis: StoreClient, command_queue: CommandQueue) -> None:
        self.settings = settings
        self.store_url = url
        self.redis = redis
        self.command_queue = command_queue
        self._fetchers: list[Fetcher] = []

    @cached_property
    def document(self) -> Document:
        """The catalogue, read at the first use. Raises CatalogueError."""
        return catalogue.read(self.settings.config)

    @cached_property
    def keys(self) -> KeyStore:
        """The keys. A new secret works only if `check_pepper` raised nothing before."""
        return KeyStore(self.redis, load_secrets(self.settings).pepper)

    @cached_property
    def operators(self) -> OperatorStore:
        """The operators. A new token works only if the keys' `check_pepper` raised nothing before."""
        return OperatorStore(self.redis, load_secrets(self.settings).pepper)

    @property
    def signing_key(self) -> bytes:
        return load_secrets(self.settings).signing_key

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.command_queue, self.calendar)

    @cached_property
    def calendar(self) -> Calendar:
        return open_calendar(self)

    @cached_property
    def history(self) -> History:
        return History(self.command_queue, self.redis, self.document.accounting)

    @cached_property
    def usage(self) -> UsageReader:
        return UsageReader(self.redis, self.document.accounting)

    @cached_property
    def changes(self) -> Changes:
        return Changes(self.redis, self.document.accounting)

    @cached_property
    def drift(self) -> DriftBook:
        return DriftBook(self.redis)

    @property
    def webhook_queue(self) -> WebhookQueue:
        return WebhookQueue(self.command_queue)

    @cached_property
    def webhook_fetcher(self) -> Fetcher:
        self._fetchers.append(open_fetcher(self.document.webhooks))
        return self._fetchers[-1]

    async def aclose(self) -> None:
        for fetcher in self._fetchers:
            await fetcher.aclose()
        await self.command_queue.aclose()
        await self.redis.aclose()


def running_store(settings: Settings) -> str | None:
    """The URL of the settings' Redis, else of the folder's embedded server; None if this server does not run."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return running_url(DataFolder(settings.data_dir))


def with_store(data_dir: Path | None, act: Callable[[OpenedStore], Awaitable[Result]]) -> Result:
    """Run an action on the store of the environment or the data folder, close the store, and return the result.

    `data_dir` replaces GATEWAY_DATA_DIR. The folder's embedded server is started for this time if it does not run.
    Raises StartRefused, BadParameter.
    """
    env = dict(os.environ) | ({} if data_dir is None else {variable("data_dir"): str(data_dir)})
    settings = load_settings(env)

    async def run() -> Result:
        async with _opened(settings) as url:
            replicas = settings.redis_wait_replicas
            store = OpenedStore(settings, url, connect(url), CommandQueue(url, wait_replicas=replicas))
            try:
                return await act(store)
            finally:
                await store.aclose()

    try:
        return asyncio.run(run())
    except StoreUnavailable as error:
        raise StartRefused(f"Redis is unavailable: {error}") from error
    except PublicError as error:
        raise _describe_refusal(error) from error


def with_secrets(data_dir: Path | None, act: Callable[[OpenedStore], Awaitable[Result]]) -> Result:
    """Run an action on keys and tokens as `with_store` does, after `check_pepper`.

    A secret that is made with another pepper than the store's would never work: then it raises PepperMismatch. A store
    that has no pepper yet takes this one.
    """

    async def run(store: OpenedStore) -> Result:
        await store.keys.check_pepper()
        return await act(store)

    return with_store(data_dir, run)


def cli_actor() -> Actor:
    """The author of a command's changes: `cli:` and the name, or the number, of the system's user."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        # A container's user need not have a name.
        name = str(os.getuid())
    return Actor(f"cli:{name}", _report)


async def remark_on_team(store: OpenedStore, team: str | None, *, is_made: bool = False) -> None:
    """Print a line on stderr if no key and no limit names this team yet: its name may be mistyped.

    `is_made`: True when the command gives the team its first key or limit.
    """
    if team and (doubt := await teams.find_doubt(store, team, is_made=is_made)):
        text = f"{doubt.removesuffix('.')}." if not doubt.endswith("?") else doubt
        output.say(f"Note: {text}" if is_made else text)


def _report(_: Mapping[str, str | None], error: StoreUnavailable | None) -> None:
    if error is not None:
        output.say(f"The change is made, but the log of changes does not have it: Redis is unavailable: {error}")


def _describe_refusal(error: PublicError) -> Exception:
    if isinstance(error, errors.InvalidValue) and error.param:
        return bad_option(error.param, error.message)
    hint = _HINTS.get(type(error))
    return ActionRefused(f"{error.message.removesuffix('.')}; {hint}" if hint else error.message)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[str]:
    """Yield the URL of the store; start the folder's server for the time of the context if it does not run.

    Raises NoStoreHere, FolderInUse, ServerFailed.
    """
    if settings.redis_url is not None:
        yield settings.redis_url.get_secret_value()
        return
    folder = DataFolder(settings.data_dir)
    if not folder.has_store() and folder.running_gateway() is None:
        # Only `serve` makes a folder: in a wrong one, a command would make keys that no gateway knows.
        raise NoStoreHere(
            f"There is no store in {folder.path}: no gateway has run with this data folder. Name its folder by "
            "--data-dir or GATEWAY_DATA_DIR, or its Redis by GATEWAY_REDIS_URL; `imagegate serve` makes a new folder"
        )
    async with AsyncExitStack() as stack:
        yield running_url(folder) or await _start_own(folder, stack)


async def _start_own(folder: DataFolder, stack: AsyncExitStack) -> str:
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            lock = stack.enter_context(folder.locked(wait_s=0))
        except FolderInUse:
            # A gateway starts or stops there: its server answers soon, or ends.
            if (url := running_url(folder)) is not None:
                return url
            running = folder.running_gateway()
            if time.monotonic() > deadline or (running is not None and running.redis is not None):
                raise
            await asyncio.sleep(_POLL_S)
        else:
            server = EmbeddedServer(folder, lock)
            process = await server.start()
            stack.callback(server.close, process)
            return server.url
