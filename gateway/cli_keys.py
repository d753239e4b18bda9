"""`imagegate keys …`: callers' API keys, in the store itself, whether or not a gateway runs.

Opens GATEWAY_REDIS_URL, else the data folder's server, starting one for as long as the command takes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from gateway.datafolder import DataFolder, FolderInUse, load_secrets
from gateway.settings import Settings, load_settings, variable
from gateway.store.client import connect
from gateway.store.embedded import EmbeddedServer, running_url
from gateway.store.keys import KeyRecord, KeyStore

Result = TypeVar("Result")

_WAIT_S = 10.0
_POLL_S = 0.1
_COLUMNS = ("id", "name", "team", "key", "models", "created", "state")

app = typer.Typer(help="Make and manage callers' API keys.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="The gateway's data folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, such as key_01k…")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is, or what for.")],
    team: Annotated[str | None, typer.Option(help="The team whose limits it shares.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model it may use; give it again for more. All if none.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown this once, and cannot be shown again.

    \b
    imagegate keys create ana --team design
    KEY=$(imagegate keys create ci --model gpt-image-2)
    """
    record, secret = _with_keys(data_dir, lambda keys: keys.create(name, team, models=model))
    if as_json:
        typer.echo(TypeAdapter(dict[str, object]).dump_json(record.model_dump(mode="json") | {"key": secret}).decode())
        return
    typer.echo(f"{record.id} for {record.name}. Keep the key: it cannot be shown again.", err=True)
    typer.echo(secret)


@app.command(name="list")
def list_keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show every key, oldest first."""
    _print(_with_keys(data_dir, lambda keys: keys.list()), as_json=as_json)


@app.command()
def show(key_id: KeyId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one key."""
    _print_one(_with_keys(data_dir, lambda keys: keys.show(key_id)), as_json=as_json)


@app.command()
def disable(key_id: KeyId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Refuse a key from its next request on; `enable` undoes it."""
    _print_one(_with_keys(data_dir, lambda keys: keys.disable(key_id)), as_json=as_json)


@app.command()
def enable(key_id: KeyId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let a disabled key work again."""
    _print_one(_with_keys(data_dir, lambda keys: keys.enable(key_id)), as_json=as_json)


@app.command()
def delete(key_id: KeyId, data_dir: DataDir = None) -> None:
    """Forget a key for ever."""
    _with_keys(data_dir, lambda keys: keys.delete(key_id))
    typer.echo(f"{key_id} is deleted.", err=True)


def _with_keys(data_dir: Path | None, act: Callable[[KeyStore], Awaitable[Result]]) -> Result:
    env = dict(os.environ) | ({} if data_dir is None else {variable("data_dir"): str(data_dir)})
    settings = load_settings(env)

    async def run() -> Result:
        async with _opened(settings) as url:
            client = connect(url)
            try:
                keys = KeyStore(client, load_secrets(settings).pepper)
                await keys.check_pepper()
                return await act(keys)
            finally:
                await client.aclose()

    return asyncio.run(run())


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


def _print_one(record: KeyRecord, *, as_json: bool) -> None:
    if as_json:
        typer.echo(record.model_dump_json())
    else:
        _print([record], as_json=False)


def _print(records: list[KeyRecord], *, as_json: bool) -> None:
    """A table on a terminal, else lines with tabs, which other programs can cut."""
    if as_json:
        typer.echo(TypeAdapter(list[KeyRecord]).dump_json(records).decode())
        return
    rows = [_cells(record) for record in records]
    if not sys.stdout.isatty():
        for row in (_COLUMNS, *rows):
            typer.echo("\t".join(row))
        return
    table = Table(*_COLUMNS)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _cells(record: KeyRecord) -> tuple[str, ...]:
    state = "enabled" if record.enabled else "disabled"
    return (
        record.id,
        record.name,
        record.team or "-",
        f"{record.hint}…",
        ", ".join(record.models) if record.models is not None else "all",
        record.created.strftime("%Y-%m-%d %H:%M"),
        f"{state}, demo" if record.demo else state,
    )
