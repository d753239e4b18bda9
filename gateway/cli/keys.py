"""`imagegate keys …`: callers' API keys, in the store itself, whether or not a gateway runs.

Each change is written into the log of changes. Never shows a key after the command that made it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import TypeAdapter

from gateway.callers.key_record import KeyChange, KeyRecord, NewKey
from gateway.callers.webhook_addresses import find_fault, open_fetcher
from gateway.cli import options
from gateway.cli.store import AsJson, Column, DataDir, OpenedStore, cli_actor, print_rows, with_store
from gateway.ids import new_id
from gateway.money.ledger_results import InvalidArgument, Scope, Standing
from gateway.money.limits import describe_limits, drop_limits, set_limits, show_limit
from gateway.server.store_checks import check_signing_key
from gateway.tasks.webhook_signature import make_secret

Result = TypeVar("Result")

_COLUMNS = ("id", "name", "team", "key", "models", "created", "expires", "state")
_CLEARABLE = (
    "team",
    "models",
    "upstreams",
    "max_quality",
    "max_pixels",
    "max_n",
    "expires",
    "addresses",
    "webhook",
    "metadata",
)

app = typer.Typer(help="Make and manage callers' API keys.", no_args_is_help=True)

KeyIdOption = Annotated[str, typer.Argument(metavar="ID", help="The key's id, such as key_01k…")]


@app.command()
def create(  # noqa: PLR0913 (each option is a parameter, read from the context)
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Whose key it is, or what for.")] = None,
    name_option: Annotated[str | None, typer.Option("--name", help="The same as an option.")] = None,
    team: options.TeamOption = None,
    models: options.Models = None,
    upstreams: options.Upstreams = None,
    max_quality: options.MaxQuality = None,
    max_pixels: options.MaxPixels = None,
    max_n: options.MaxN = None,
    may_pin_upstream: options.MayPin = None,
    expires: options.Expires = None,
    address: options.AddressOption = None,
    webhook: options.Webhook = None,
    meta: options.Meta = None,
    usd_total: options.UsdTotal = None,
    usd_month: options.UsdMonth = None,
    usd_week: options.UsdWeek = None,
    usd_day: options.UsdDay = None,
    images_month: options.ImagesMonth = None,
    images_day: options.ImagesDay = None,
    images_minute: options.ImagesMinute = None,
    requests_minute: options.RequestsMinute = None,
    concurrent_requests: options.Concurrent = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown this once, and cannot be shown again.

    \b
    imagegate keys create ana --team design --usd-month 20 --images-per-minute 5
    KEY=$(imagegate keys create ci --model gpt-image-2 --expires 30d --address 10.0.0.0/8)
    """
    if (name is None) == (name_option is None):
        raise options.bad_option("name", "give the key's name once, as NAME or by --name")
    new = options.read_key_fields(ctx.params | {"name": name or name_option}, NewKey)
    limits = options.read_limits(ctx.params)
    record, secret = _with_keys(data_dir, lambda store: create_key(store, NewKey(**new.changes()), limits))
    _print_secret(record, secret, as_json=as_json, limits=describe_limits(limits))


@app.command(name="list")
def list_keys(
    team: Annotated[str | None, typer.Option(help="Only this team's.", show_default=False)] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show every key, oldest first."""
    records = _with_keys(data_dir, lambda store: store.keys.list(team=team))
    if as_json:
        typer.echo(TypeAdapter(list[KeyRecord]).dump_json(records).decode())
        return
    print_rows([Column(name) for name in _COLUMNS], [_cells(record) for record in records])


@app.command()
def show(key_id: KeyIdOption, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one key: what it may do, its own limits, and what is left of them."""

    async def look(store: OpenedStore) -> tuple[KeyRecord, list[Standing]]:
        record = await store.keys.show(key_id)
        standings = await store.ledger.look(key=key_id)
        return record, [one for one in standings.limits if one.scope == "key"]

    record, standings = _with_keys(data_dir, look)
    if as_json:
        limits = describe_limits({one.limit: one.ceiling for one in standings})
        typer.echo(_dump(record.model_dump(mode="json") | {"limits": limits}))
        return
    left = [
        (one.limit, f"{show_limit(one.limit, one.ceiling)}, {show_limit(one.limit, one.left)} left")
        for one in standings
    ]
    print_rows([Column("field"), Column("value")], [*_facts(record), *left])


@app.command()
def change(  # noqa: PLR0913 (each option is a parameter, read from the context)
    ctx: typer.Context,
    key_id: KeyIdOption,
    name: Annotated[str | None, typer.Option(help="Whose key it is, or what for.")] = None,
    team: options.TeamOption = None,
    models: options.Models = None,
    upstreams: options.Upstreams = None,
    max_quality: options.MaxQuality = None,
    max_pixels: options.MaxPixels = None,
    max_n: options.MaxN = None,
    may_pin_upstream: options.MayPin = None,
    expires: options.Expires = None,
    address: options.AddressOption = None,
    webhook: options.Webhook = None,
    meta: options.Meta = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help=f"Take it away again: {', '.join(_CLEARABLE)}; repeatable."),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change what a key may do. What is not said stays; a list is replaced as a whole.

    \b
    imagegate keys change key_01k… --max-quality medium --clear addresses
    """
    cleared = tuple(field.replace("-", "_") for field in clear or ())
    if wrong := [field for field in cleared if field not in _CLEARABLE]:
        raise options.bad_option("clear", f"{wrong[0]!r} is none of {', '.join(_CLEARABLE)}")
    wanted = options.read_key_fields(ctx.params, KeyChange, cleared)
    record = _with_keys(data_dir, lambda store: _change(store, key_id, wanted))
    _print_record(record, as_json=as_json)


@app.command()
def rotate(
    key_id: KeyIdOption,
    grace: Annotated[
        str, typer.Option(metavar="SPAN", help="How long the old key still works; 0: every old one stops now.")
    ] = "24h",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret and print it. Its id, limits and history stay.

    \b
    KEY=$(imagegate keys rotate key_01k… --grace 2h)
    """
    grace_s = round(options.read_span(grace, "grace").total_seconds())

    async def act(store: OpenedStore) -> tuple[KeyRecord, str]:
        before = await store.keys.show(key_id)
        record, secret = await store.keys.rotate(key_id, grace_s)
        await _note(store, "key.rotate", key_id, before.model_dump(), record.model_dump() | {"grace_s": grace_s})
        return record, secret

    record, secret = _with_keys(data_dir, act)
    _print_secret(record, secret, as_json=as_json)


@app.command()
def webhook_secret(
    key_id: KeyIdOption,
    is_rotated: Annotated[bool, typer.Option("--rotate", help="Make a new one.")] = False,
    grace: Annotated[
        str, typer.Option(metavar="SPAN", help="How long messages are signed with the old one too; 0: not at all.")
    ] = "24h",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the secret by which the receiver of a key's webhooks verifies them.

    \b
    SECRET=$(imagegate keys webhook-secret key_01k…)
    """
    grace_s = round(options.read_span(grace, "grace").total_seconds())

    async def act(store: OpenedStore) -> tuple[KeyRecord, str]:
        await check_signing_key(store.redis, store.url, store.signing_key)
        before = record = await store.keys.show(key_id)
        if is_rotated:
            record = await store.keys.rotate_webhook(key_id, grace_s)
            await _note(store, "key.rotate_webhook", key_id, before.model_dump(), record.model_dump())
        return record, make_secret(store.signing_key, record.id, record.webhook_secret)

    record, secret = _with_keys(data_dir, act)
    typer.echo(
        _dump({"id": record.id, "secret": secret, "former_until": record.webhook_overlap}) if as_json else secret
    )


@app.command()
def disable(key_id: KeyIdOption, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Refuse a key, within a second; `enable` undoes it."""
    _print_record(_with_keys(data_dir, lambda store: _change(store, key_id, KeyChange(enabled=False))), as_json=as_json)


@app.command()
def enable(key_id: KeyIdOption, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let a disabled key work again."""
    _print_record(_with_keys(data_dir, lambda store: _change(store, key_id, KeyChange(enabled=True))), as_json=as_json)


@app.command()
def delete(key_id: KeyIdOption, data_dir: DataDir = None) -> None:
    """Forget a key and its limits for ever. What it spent stays in history and usage."""

    async def act(store: OpenedStore) -> None:
        before = await store.keys.show(key_id)
        await store.keys.delete(key_id)
        await drop_limits(store.ledger, Scope(key=key_id))
        await _note(store, "key.delete", key_id, before.model_dump(), None)

    _with_keys(data_dir, act)
    typer.echo(f"{key_id} is deleted.", err=True)


def _with_keys(data_dir: Path | None, act: Callable[[OpenedStore], Awaitable[Result]]) -> Result:
    async def run(store: OpenedStore) -> Result:
        await store.keys.check_pepper()
        return await act(store)

    return with_store(data_dir, run)


async def create_key(store: OpenedStore, new: NewKey, limits: dict[str, int]) -> tuple[KeyRecord, str]:
    """A key with its limits, or none. They are set before it exists: at no moment can it spend without bound."""
    await _check(new, store)
    key_id = new_id("key")
    try:
        await set_limits(store.ledger, Scope(key=key_id), limits)
    except InvalidArgument:
        await drop_limits(store.ledger, Scope(key=key_id))
        raise
    record, secret = await store.keys.add(new, key_id=key_id)
    await _note(store, "key.create", record.id, None, record.model_dump() | {"limits": describe_limits(limits)})
    return record, secret


async def _change(store: OpenedStore, key_id: str, change: KeyChange) -> KeyRecord:
    await _check(change, store)
    before = await store.keys.show(key_id)
    record = await store.keys.apply(key_id, change)
    await _note(store, "key.change", key_id, before.model_dump(), record.model_dump())
    return record


async def _check(change: KeyChange, store: OpenedStore) -> None:
    options.check_names(change, store.document)
    if change.expires is not None and change.expires <= datetime.now(UTC):
        raise options.bad_option("expires", "that is past; disable a key that is to stop at once")
    if change.webhook is not None:
        fetcher = open_fetcher(store.document.webhooks)
        fault = await find_fault(fetcher, change.webhook)
        await fetcher.aclose()
        if fault:
            raise options.bad_option("webhook", fault)


async def _note(
    store: OpenedStore, action: str, key_id: str, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> None:
    await store.changes.write(cli_actor(), action, key_id, before, after)


def _print_secret(record: KeyRecord, secret: str, *, as_json: bool, **more: object) -> None:
    """The key on stdout, alone, so that a script can take it; what people want to know on stderr."""
    if as_json:
        typer.echo(_dump(record.model_dump(mode="json") | more | {"key": secret}))
        return
    typer.echo(f"{record.id} for {record.name}. Keep the key: it cannot be shown again.", err=True)
    typer.echo(secret)


def _print_record(record: KeyRecord, *, as_json: bool) -> None:
    if as_json:
        typer.echo(record.model_dump_json())
    else:
        print_rows([Column(name) for name in _COLUMNS], [_cells(record)])


def _dump(value: dict[str, Any]) -> str:
    return TypeAdapter(dict[str, Any]).dump_json(value).decode()


def _cells(record: KeyRecord) -> tuple[str, ...]:
    return (
        record.id,
        record.name,
        record.team or "-",
        f"{record.hint}…",
        _listed(record.models),
        _at(record.created),
        _at(record.expires),
        _state(record),
    )


def _facts(record: KeyRecord) -> list[tuple[str, str]]:
    facts = [
        ("id", record.id),
        ("name", record.name),
        ("team", record.team or "-"),
        ("key", f"{record.hint}…"),
        ("state", _state(record)),
        ("created", _at(record.created)),
        ("rotated", _at(record.rotated)),
        ("expires", _at(record.expires)),
        ("models", _listed(record.models)),
        ("upstreams", _listed(record.upstreams)),
        ("addresses", _listed(record.addresses)),
        ("webhook", record.webhook or "-"),
        ("max_quality", record.max_quality or "-"),
        ("max_pixels", str(record.max_pixels or "-")),
        ("max_n", str(record.max_n or "-")),
        ("may_pin_upstream", "yes" if record.may_pin_upstream else "no"),
    ]
    return facts + [(f"metadata {name}", value) for name, value in record.metadata.items()]


def _state(record: KeyRecord) -> str:
    state = "enabled" if record.enabled else "disabled"
    if record.enabled and record.has_expired(datetime.now(UTC)):
        state = "expired"
    return f"{state}, demo" if record.demo else state


def _listed(names: tuple[str, ...] | None) -> str:
    return "all" if names is None else ", ".join(names)


def _at(moment: datetime | None) -> str:
    return "-" if moment is None else moment.strftime("%Y-%m-%d %H:%M")
