"""`imagegate keys …`: callers' API keys, in the store itself, whether or not a gateway runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import TypeAdapter

from gateway.cli_store import AsJson, Column, DataDir, OpenedStore, print_rows, with_store
from gateway.store.keys import KeyRecord, KeyStore

Result = TypeVar("Result")

_COLUMNS = ("id", "name", "team", "key", "models", "created", "state")

app = typer.Typer(help="Make and manage callers' API keys.", no_args_is_help=True)

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
    async def run(store: OpenedStore) -> Result:
        await store.keys.check_pepper()
        return await act(store.keys)

    return with_store(data_dir, run)


def _print_one(record: KeyRecord, *, as_json: bool) -> None:
    if as_json:
        typer.echo(record.model_dump_json())
    else:
        _print([record], as_json=False)


def _print(records: list[KeyRecord], *, as_json: bool) -> None:
    if as_json:
        typer.echo(TypeAdapter(list[KeyRecord]).dump_json(records).decode())
        return
    print_rows([Column(name) for name in _COLUMNS], [_cells(record) for record in records])


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
