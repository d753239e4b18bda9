"""`imagegate serve`: it reads the settings from options and environment, and starts the processes that serve."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import output
from gateway.process.logs import write_event
from gateway.process.settings import StartRefused, find_token_warning, load_settings, variable
from gateway.server import supervisor
from gateway.store.client import StoreUnavailable


def serve(
    is_demo: Annotated[
        bool, typer.Option("--demo", help="Make a demo key; without any upstream key, a simulator answers.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (8080); 0 takes any free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes (1).")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for keys, ledger and pictures.", show_default=False)
    ] = None,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM.

    One process keeps the others alive: the workers, an embedded Valkey unless GATEWAY_REDIS_URL names a Redis, and a
    simulator in demo mode without an upstream key. The first signal lets paid pictures finish; a second one abandons
    them.

    \b
    imagegate serve --demo
    imagegate serve --host 0.0.0.0 --workers 4 --data-dir /var/lib/imagegate
    """
    flags = {"host": host, "port": port, "workers": workers, "data_dir": data_dir}
    env = dict(os.environ) | {variable(name): str(value) for name, value in flags.items() if value is not None}
    settings = load_settings(env)
    if warning := find_token_warning(settings):
        write_event(f"Warning: {warning}")
    write_event("Starting; the address follows when the gateway is ready", "info")
    is_serving = False

    def show(banner: str) -> None:
        nonlocal is_serving
        output.show(banner)
        is_serving = True

    try:
        supervisor.serve(settings, env, is_demo=is_demo, voice=supervisor.Output(show=show, say=write_event))
    except StoreUnavailable as error:
        raise StartRefused(f"Redis is unavailable: {error}") from error
    except OSError as error:
        raise StartRefused(f"The gateway cannot start: {error}") from error
    except StartRefused as refusal:
        if not is_serving:
            raise
        # The log of a gateway that has served is read by programs; a refused start is read by people.
        write_event(refusal.tell(), "error")
        raise typer.Exit(refusal.exit_code) from refusal
    write_event("Stopped", "info")
