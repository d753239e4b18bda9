"""`imagegate operators …`: tokens for the admin API, in the store itself, with or without a running gateway.

The log of changes has each change. Prints a token only in the command that makes it.
"""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from gateway.callers.operator_store import OperatorName, Role
from gateway.cli import output
from gateway.cli.display import Column, print_json, print_rows, show_moment
from gateway.cli.options import IsSure
from gateway.cli.store import AsJson, DataDir, OpenedStore, cli_actor, with_secrets
from gateway.operations import operators
from gateway.operations.answers import Deleted

_COLUMNS = tuple(Column(name) for name in ("name", "role", "token", "created"))
_NAME: TypeAdapter[str] = TypeAdapter(OperatorName)

app = typer.Typer(help="Make and delete tokens for the admin API.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The operator: letters, digits and . _ @ -")],
    role: Annotated[Role, typer.Option(help="admin may do everything, viewer may read.")] = Role.VIEWER,
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
    try:
        made = with_secrets(data_dir, lambda store: operators.create_operator(store, cli_actor(), name, role))
    except typer.BadParameter as error:
        raise typer.BadParameter(error.message, param_hint="NAME") from error
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made.name} is {made.role}. Keep the token: it cannot be shown again.", err=True)
    typer.echo(made.token)


@app.command(name="list")
def list_operators(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show every operator, in the order of their names. The token in GATEWAY_ADMIN_TOKEN has no entry."""
    found = with_secrets(data_dir, operators.list_operators)
    if as_json:
        print_json(found)
        return
    print_rows(_COLUMNS, [(one.name, one.role, f"{one.hint}…", show_moment(one.created)) for one in found.data])


@app.command()
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The operator's name.")],
    is_sure: IsSure = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Delete an operator; the token is refused from its next request on."""

    async def act(store: OpenedStore) -> Deleted:
        output.confirm(f"Delete the operator {name} for ever?", is_sure=is_sure)
        return await operators.delete_operator(store, cli_actor(), name)

    deleted = with_secrets(data_dir, act)
    if as_json:
        print_json(deleted)
        return
    typer.echo(f"{name} is deleted.", err=True)
