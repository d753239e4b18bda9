"""`imagegate operators …`: who has a token for the admin API, in the store itself, whether or not a gateway runs.

Each change is written into the log of changes. Never shows a token after the command that made it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from gateway.callers.operator_store import OperatorName, OperatorRecord, OperatorStore, Role
from gateway.cli.store import AsJson, Column, DataDir, OpenedStore, cli_actor, print_rows, with_store
from gateway.process.data_folder import load_secrets

Result = TypeVar("Result")

_COLUMNS = tuple(Column(name) for name in ("name", "role", "token", "created"))
_NAME: TypeAdapter[str] = TypeAdapter(OperatorName)

app = typer.Typer(help="Give and take tokens for the admin API.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is: letters, digits and . _ @ -")],
    role: Annotated[Role, typer.Option(help="admin may do everything, viewer may look.")] = Role.VIEWER,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a token for the admin API and print it. It is shown this once, and cannot be shown again.

    \b
    imagegate operators create ana@example.org --role viewer
    """
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        raise typer.BadParameter("up to 64 letters, digits and . _ @ -", param_hint="NAME") from error

    async def act(store: OpenedStore, operators: OperatorStore) -> tuple[OperatorRecord, str]:
        record, token = await operators.create(name, role)
        await _note(store, "operator.create", name, None, record.model_dump())
        return record, token

    record, token = _with_operators(data_dir, act)
    if as_json:
        typer.echo(TypeAdapter(dict[str, Any]).dump_json(record.model_dump() | {"token": token}).decode())
        return
    typer.echo(f"{record.name} is {record.role}. Keep the token: it cannot be shown again.", err=True)
    typer.echo(token)


@app.command(name="list")
def list_operators(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show every operator, by name. The token in GATEWAY_ADMIN_TOKEN is none of them."""
    records = _with_operators(data_dir, lambda _, operators: operators.list())
    if as_json:
        typer.echo(TypeAdapter(list[OperatorRecord]).dump_json(records).decode())
        return
    print_rows(_COLUMNS, [(one.name, one.role, f"{one.hint}…", f"{one.created:%Y-%m-%d %H:%M}") for one in records])


@app.command()
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token it was made for.")], data_dir: DataDir = None
) -> None:
    """Take a token away, from its next request on."""

    async def act(store: OpenedStore, operators: OperatorStore) -> None:
        record = await operators.delete(name)
        await _note(store, "operator.delete", name, record.model_dump(), None)

    _with_operators(data_dir, act)
    typer.echo(f"{name} is deleted.", err=True)


def _with_operators(data_dir: Path | None, act: Callable[[OpenedStore, OperatorStore], Awaitable[Result]]) -> Result:
    async def run(store: OpenedStore) -> Result:
        # A token under another pepper would be refused by every gateway.
        await store.keys.check_pepper()
        return await act(store, OperatorStore(store.redis, load_secrets(store.settings).pepper))

    return with_store(data_dir, run)


async def _note(
    store: OpenedStore, action: str, name: str, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> None:
    await store.changes.write(cli_actor(), action, f"operator:{name}", before, after)
