"""Lines for people and scripts: results on stdout, events on stderr.

A closed terminal, or a pipe without a reader, must not end a gateway that others use.
"""

from __future__ import annotations

from contextlib import suppress

import typer


def show(text: str) -> None:
    """Print a result."""
    with suppress(OSError):
        typer.echo(text)


def say(text: str) -> None:
    """Print an event on stderr, after the command's name."""
    with suppress(OSError):
        typer.echo(f"imagegate: {text}", err=True)
