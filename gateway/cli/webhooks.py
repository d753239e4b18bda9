"""`imagegate webhooks`: messages to callers' addresses that have not arrived, and another try for them.

Works on the store itself; a gateway that runs makes the tries.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from gateway.cli.store import AsJson, Column, DataDir, OpenedStore, cli_actor, print_rows, with_store
from gateway.history.export import show_time
from gateway.state.webhook_queue import Undelivered, WebhookQueue

_COLUMNS = (
    Column("id"),
    Column("state"),
    Column("tries", is_number=True),
    Column("why"),
    Column("task"),
    Column("key"),
    Column("created", is_detail=True),
    Column("next try", is_detail=True),
    Column("url", is_detail=True),
)

ALL = "all"


def webhooks(
    key: Annotated[str | None, typer.Option("--key", metavar="ID", help="Of this key.", show_default=False)] = None,
    retry: Annotated[
        str | None, typer.Option(metavar="ID", help="Try this one again; `all`: every one that was given up.")
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, max=10_000, help="So many that wait, and so many that were given up.")
    ] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the messages to callers' addresses that have not arrived: what waits, and what was given up this week.

    \b
    imagegate webhooks --key key_01k…
    imagegate webhooks --retry msg_01k…
    """

    async def look(store: OpenedStore) -> list[Undelivered]:
        webhook_queue = WebhookQueue(store.command_queue)
        if retry is not None:
            await _retry(store, webhook_queue, retry, key or "", most)
        return await webhook_queue.look(most, key or "")

    found = with_store(data_dir, look)
    if as_json:
        typer.echo(TypeAdapter(list[dict[str, Any]]).dump_json([_facts(one) for one in found]).decode())
    else:
        print_rows(_COLUMNS, [_cells(one) for one in found])


async def _retry(store: OpenedStore, webhook_queue: WebhookQueue, wanted: str, key: str, most: int) -> None:
    lost = [one.id for one in await webhook_queue.look(most, key) if one.state == "lost"]
    for message_id in lost if wanted == ALL else [wanted]:
        if not await webhook_queue.retry(message_id):
            raise typer.BadParameter("no message of this id waits or was given up", param_hint="--retry")
        await store.changes.write(cli_actor(), "webhook.retry", message_id, None, None)


def _facts(one: Undelivered) -> dict[str, Any]:
    due = None if one.due is None else show_time(one.due * 1000)
    return asdict(one) | {"created": show_time(one.created * 1000), "due": due}


def _cells(one: Undelivered) -> tuple[str, ...]:
    due = "-" if one.due is None else _at(one.due)
    return (one.id, one.state, str(one.tries), one.why or "-", one.task, one.key, _at(one.created), due, one.url)


def _at(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
