"""The command `imagegate`: serve, simulate, check, healthcheck, keys, and what was spent and changed.

The one place where what was typed and set becomes Settings, and where a refusal becomes a message and an exit code.
"""

from __future__ import annotations

import http.client
import os
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from gateway import (
    __version__,
    cli_audit,
    cli_check,
    cli_keys,
    cli_limits,
    cli_money,
    cli_operators,
    cli_probe,
    cli_quote,
    cli_upstreams,
    cli_usage,
    cli_webhooks,
    supervisor,
)
from gateway.catalog import CatalogueError
from gateway.listening import address_for_people
from gateway.settings import SettingsError, StartRefused, load_settings, variable, warn_of_token
from gateway.store.client import StoreUnavailable

EXIT_REFUSED = 1
EXIT_SETTINGS = 2
_HEALTHCHECK_S = 5.0


class PlainRefusals(TyperGroup):
    """A group whose refusals are sentences on stderr, never tracebacks."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as refusal:
            _say("These settings cannot be used:\n" + "\n".join(f"  {line}" for line in refusal.problems))
            raise typer.Exit(EXIT_SETTINGS) from refusal
        except CatalogueError as refusal:
            _say(f"This catalogue cannot be used:\n{textwrap.indent(str(refusal), '  ')}")
            raise typer.Exit(EXIT_SETTINGS) from refusal
        except StartRefused as refusal:
            _say(str(refusal))
            raise typer.Exit(EXIT_REFUSED) from refusal
        except StoreUnavailable as refusal:
            _say(f"Redis is away: {refusal}")
            raise typer.Exit(EXIT_REFUSED) from refusal


app = typer.Typer(
    name="imagegate",
    cls=PlainRefusals,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    # A traceback with local variables would print secrets.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_limits.app, name="limits")
app.add_typer(cli_operators.app, name="operators")
app.command()(cli_usage.usage)
app.command()(cli_usage.history)
app.command()(cli_usage.changes)
for _command in (cli_money.credit, cli_money.holds, cli_money.teams):
    app.command()(_command)
app.command()(cli_audit.audit)
app.command()(cli_upstreams.upstreams)
app.command()(cli_webhooks.webhooks)
app.command()(cli_quote.quote)
app.command()(cli_check.check)
app.command()(cli_probe.probe)


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
    Serve your team:             ANYFAST_API_KEY=… imagegate serve --host 0.0.0.0
    Give somebody a key:         imagegate keys create ana --team design
    """


DataDir = Annotated[Path | None, typer.Option(help="Folder for keys, ledger and pictures.", show_default=False)]


@app.command()
def serve(
    is_demo: Annotated[
        bool, typer.Option("--demo", help="Make a key to try with; with no upstream key set, a simulator answers.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (8080); 0 takes any free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes (1).")] = None,
    data_dir: DataDir = None,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM.

    One process keeps the others alive: the workers, an embedded Valkey unless GATEWAY_REDIS_URL names a Redis, and in
    demo mode a simulator. The first signal lets paid pictures finish; a second one abandons them.

    \b
    imagegate serve --demo
    imagegate serve --host 0.0.0.0 --workers 4 --data-dir /var/lib/imagegate
    """
    env = _environment({"host": host, "port": port, "workers": workers, "data_dir": data_dir})
    voice = supervisor.Voice(show=_show, say=_say)
    settings = load_settings(env)
    if warning := warn_of_token(settings):
        _say(f"Warning: {warning}")
    supervisor.serve(settings, env, is_demo=is_demo, voice=voice)


@app.command()
def simulate(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8090,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    latency: Annotated[float, typer.Option(help="Seconds a picture takes.")] = 0.5,
) -> None:
    """Run the upstreams' stand-in alone.

    \b
    imagegate simulate --port 8090
    GATEWAY_SIMULATOR_URL=http://127.0.0.1:8090 imagegate serve --demo
    """
    options = ("--host", host, "--port", str(port), "--latency", str(latency))
    os.execv(sys.executable, [sys.executable, "-m", "gateway.simulator", *options])  # noqa: S606 - our own module


@app.command()
def healthcheck() -> None:
    """Ask this machine's gateway if it is ready.

    The exit code is 0 when it is and 1 when it is not, as a container's health check wants it."""
    settings = load_settings(os.environ)
    address = address_for_people(settings.host, settings.port).removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=_HEALTHCHECK_S)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        _say(f"No gateway answers at {address}: {error}")
        raise typer.Exit(EXIT_REFUSED) from error
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        _say(f"The gateway at {address} is not ready ({status})")
        raise typer.Exit(EXIT_REFUSED)


def _environment(flags: dict[str, object]) -> dict[str, str]:
    """The environment with what was typed in the place of what was set, for this process and its children."""
    return dict(os.environ) | {variable(name): str(value) for name, value in flags.items() if value is not None}


def _show(text: str) -> None:
    # A terminal that was closed, or a pipe that nobody reads, must not end a gateway that others use.
    with suppress(OSError):
        typer.echo(text)


def _say(text: str) -> None:
    with suppress(OSError):
        typer.echo(f"imagegate: {text}", err=True)
