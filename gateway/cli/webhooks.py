"""`imagegate webhooks`: messages to callers' addresses that have not arrived, and another attempt for them.

Works on the store itself; a running gateway makes the attempts.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.display import Column, print_json, print_rows
from gateway.cli.store import AsJson, DataDir, OpenedStore, cli_actor, with_store
from gateway.operations.answers import Listing
from gateway.operations.webhooks import UndeliveredMessage, list_webhooks, retry_webhook

_COLUMNS = (
    Column("id"),
    Column("state"),
    Column("tries", is_number=True),
    Column("why", is_text=True),
    Column("task"),
    Column("key"),
    Column("created", is_detail=True),
    Column("next try", is_detail=True),
    Column("url", is_detail=True, is_text=True),
)

ALL = "all"


def webhooks(
    key: Annotated[str | None, typer.Option("--key", help="Of this key, by id or name.", show_default=False)] = None,
    retry: Annotated[
        str | None, typer.Option(metavar="ID", help="Try this one again; `all`: every one that was given up.")
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many that wait, and how many that were given up.")
    ] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the messages to callers' addresses that have not arrived: those that wait, and those lost within a week.

    \b
    imagegate webhooks --key key_01k…
    imagegate webhooks --retry msg_01k…
    """

    async def act(store: OpenedStore) -> Listing[UndeliveredMessage]:
        if retry == ALL:
            for one in (await list_webhooks(store, key, most)).data:
                if one.state == "lost":
                    await retry_webhook(store, cli_actor(), one.id)
        elif retry is not None:
            await retry_webhook(store, cli_actor(), retry)
        return await list_webhooks(store, key, most)

    found = with_store(data_dir, act)
    if as_json:
        print_json(found)
        return
    print_rows(_COLUMNS, [_cells(one) for one in found.data])


def _cells(one: UndeliveredMessage) -> tuple[str, ...]:
    due = "-" if one.due is None else _show_instant(one.due)
    created = _show_instant(one.created)
    return (one.id, one.state, str(one.tries), one.why or "-", one.task, one.key, created, due, one.url)


def _show_instant(micro: int) -> str:
    return datetime.fromtimestamp(micro / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
