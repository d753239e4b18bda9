"""The command `imagegate`, and the module of each of its commands.

A command's module is loaded when the command is named: a container's health check runs twice a minute, and needs a
tenth of the other commands' imports. A StartRefused becomes a message and an exit code here.
"""

from __future__ import annotations

import os
import sys
from collections import UserDict
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from gateway import __version__
from gateway.cli import output
from gateway.process.settings import StartRefused

_MODULES = {
    "serve": "serve",
    "keys": "keys",
    "limits": "limits",
    "operators": "operators",
    "usage": "usage",
    "history": "history",
    "changes": "changes",
    "credit": "money",
    "holds": "money",
    "teams": "teams",
    "audit": "audit",
    "upstreams": "upstreams",
    "pause": "pauses",
    "resume": "pauses",
    "webhooks": "webhooks",
    "quote": "quote",
    "check": "check",
    "probe": "probe.command",
    "healthcheck": "healthcheck",
    "support-bundle": "support_bundle",
}
"""Commands by their names, and their modules: a group is the module's `app`, a command its function of that name."""


class LazyCommands(UserDict[str, Any]):
    """Commands by their names; a text is the module of a command that is not loaded yet."""

    @override
    def __getitem__(self, key: str) -> Any:
        found = self.data[key]
        if isinstance(found, str):
            found = self.data[key] = _load(key, found)
        return found


def _load(name: str, module: str) -> Any:
    loaded, holder = import_module(f"gateway.cli.{module}"), typer.Typer(rich_markup_mode=None)
    if group := getattr(loaded, "app", None):
        holder.add_typer(group, name=name)
    else:
        holder.command(name)(getattr(loaded, name.replace("-", "_")))
    return typer.main.get_group(holder).commands[name]


class Commands(TyperGroup):
    """A group that prints refusals as sentences on stderr, never as tracebacks."""

    @override
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = LazyCommands(_MODULES | dict(self.commands))

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except StartRefused as refusal:
            output.say(refusal.tell())
            raise typer.Exit(refusal.exit_code) from refusal


app = typer.Typer(
    name="imagegate",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    # A traceback with local variables would print secrets.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"imagegate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """A self-hosted, OpenAI-compatible gateway for image generation and editing.

    \b
    Try it without any key:      imagegate serve --demo
    Serve your team:             imagegate serve --host 0.0.0.0
    Give somebody a key:         imagegate keys create ana --team design
    """


@app.command()
def simulate(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8090,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    latency: Annotated[float, typer.Option(help="Seconds a picture takes.")] = 0.5,
) -> None:
    """Run the simulator of upstreams alone.

    \b
    imagegate simulate --port 8090
    GATEWAY_SIMULATOR_URL=http://127.0.0.1:8090 imagegate serve --demo
    """
    options = ("--host", host, "--port", str(port), "--latency", str(latency))
    os.execv(sys.executable, [sys.executable, "-P", "-m", "gateway.simulator", *options])  # noqa: S606 - an own module
