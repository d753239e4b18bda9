"""`imagegate changes`: the log of changes, from the store itself, with or without a gateway."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import orjson
import typer

from gateway.cli import options
from gateway.cli.display import Column, print_json, print_rows
from gateway.cli.store import AsJson, DataDir, OpenedStore, with_store
from gateway.errors import KeyNotFound
from gateway.operations.answers import Listing
from gateway.operations.changes import SINCE, MadeChange, list_changes

_DETAILS = {"before", "address"}
_TEXTS = {"before", "after", "subject"}
_COLUMNS = ("time", "actor", "action", "subject", "before", "after", "address")


def changes(
    since: options.Since = SINCE,
    subject: Annotated[
        str | None,
        typer.Option(
            help="Only of this key (id or name), `team:NAME`, `everyone` or `operator:NAME`.", show_default=False
        ),
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this operator.", show_default=False)] = None,
    most: options.Most = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the log of changes, newest first."""

    async def read(store: OpenedStore) -> tuple[Listing[MadeChange], list[str]]:
        rows = most or (None if as_json else options.TABLE_ROWS)
        found = await list_changes(store, since, await _find_subject(store, subject), actor, rows)
        return found, [store.calendar.show_instant(change.time) for change in found.data]

    found, times = with_store(data_dir, read)
    if as_json:
        print_json(found)
        return
    rows = [_cells(change, when) for change, when in zip(found.data, times, strict=True)]
    print_rows([Column(name, is_detail=name in _DETAILS, is_text=name in _TEXTS) for name in _COLUMNS], rows)


async def _find_subject(store: OpenedStore, subject: str | None) -> str | None:
    """The subject as the log names it: a key's name becomes the key's id. Any other text stays, and None too."""
    with suppress(KeyNotFound):
        return await store.keys.find_id(subject or "")
    return subject


def _cells(change: MadeChange, when: str) -> tuple[str, ...]:
    before, after = _show_fields(change.before), _show_fields(change.after)
    return (when, change.actor, change.action, change.subject, before, after, change.address or "-")


def _show_fields(fields: dict[str, Any] | None) -> str:
    return "-" if fields is None else orjson.dumps(fields).decode()
