"""What commands say to people: what was asked for on stdout, and what happened on stderr.

A terminal that was closed, or a pipe that nobody reads, must not end a gateway that others use.
"""

from __future__ import annotations

from contextlib import suppress

import typer


def show(text: str) -> None:
    """Print what was asked for."""
    with suppress(OSError):
        typer.echo(text)


def say(text: str) -> None:
    """Tell what happened, under the command's name."""
    with suppress(OSError):
        typer.echo(f"imagegate: {text}", err=True)
