"""Lines for people and scripts: results on stdout, events on stderr.

A closed terminal, or a pipe without a reader, must not end a gateway that others use.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import typer


def show(text: str) -> None:
    """Print a result on stdout. A closed stdout raises nothing."""
    with suppress(OSError):
        typer.echo(text)


def confirm(question: str, *, is_sure: bool) -> None:
    """Ask a person at a terminal before a step that cannot be undone. Raises typer.Exit, with code 1, for a no.

    Asks nothing if `is_sure`, or if stdin is no terminal.
    """
    if is_sure or not sys.stdin.isatty() or typer.confirm(question, err=True):
        return
    say("Nothing was changed.")
    raise typer.Exit(1)


def say(text: str) -> None:
    """Print an event on stderr, after `imagegate:`. A closed stderr raises nothing."""
    with suppress(OSError):
        typer.echo(f"imagegate: {text}", err=True)
