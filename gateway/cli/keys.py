"""`imagegate keys …`: callers' API keys, in the store itself, with or without a running gateway.

The log of changes has each change. A key's secret is printed only when a command makes it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from gateway.callers.key_record import KeyChange, KeyRecord, NewKey
from gateway.cli import options, output
from gateway.cli.display import Column, print_json, print_rows, show_moment
from gateway.cli.store import AsJson, DataDir, OpenedStore, cli_actor, remark_on_team, with_secrets
from gateway.operations import keys
from gateway.operations.answers import Deleted, Listing
from gateway.operations.keys import KeyWithLimits, KeyWithSecret, WebhookSecret
from gateway.server.store_checks import check_signing_key

_TABLE = (
    *(Column("id"), Column("name", is_text=True), Column("team", is_text=True), Column("key", is_detail=True)),
    *(Column("models", is_detail=True, is_text=True), Column("created", is_detail=True)),
    *(Column("expires", is_detail=True), Column("state")),
)
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

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, such as key_01k…, or its name.")]


@app.command()
def create(  # noqa: PLR0913 (each option is a parameter, read from the context)
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The key's owner or purpose.")] = None,
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
    new = NewKey(**options.read_key_fields(ctx.params | {"name": name or name_option}, NewKey).changes())
    limits = options.read_limits(ctx.params)

    async def act(store: OpenedStore) -> KeyWithSecret:
        await remark_on_team(store, new.team, is_made=True)
        return await keys.create_key(store, cli_actor(), new, limits)

    made = with_secrets(data_dir, act)
    _print_secret(made, as_json=as_json)


@app.command(name="list")
def list_keys(
    team: Annotated[str | None, typer.Option(help="Only this team's keys.", show_default=False)] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show every key, oldest first."""

    async def read(store: OpenedStore) -> Listing[KeyRecord]:
        await remark_on_team(store, team)
        return await keys.list_keys(store, team)

    found = with_secrets(data_dir, read)
    if as_json:
        print_json(found)
        return
    print_rows(_TABLE, [_cells(record) for record in found.data])


@app.command()
def show(key: KeyArgument, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one key: its rights, its own limits, and the rest of each."""
    found = with_secrets(data_dir, lambda store: keys.show_key(store, key))
    if as_json:
        print_json(found)
        return
    print_rows([Column("field"), Column("value", is_text=True)], [*_fields(found), *_limits(found)])


@app.command()
def change(  # noqa: PLR0913 (each option is a parameter, read from the context)
    ctx: typer.Context,
    key: KeyArgument,
    name: Annotated[str | None, typer.Option(help="The key's owner or purpose.")] = None,
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
        typer.Option(metavar="FIELD", help=f"Remove it: {', '.join(_CLEARABLE)}; repeatable."),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change a key's fields. Fields without an option stay; a list is replaced as a whole.

    \b
    imagegate keys change key_01k… --max-quality medium --clear addresses
    """
    cleared = tuple(field.replace("-", "_") for field in clear or ())
    if wrong := [field for field in cleared if field not in _CLEARABLE]:
        raise options.bad_option("clear", f"{wrong[0]!r} is none of {', '.join(_CLEARABLE)}")
    wanted = options.read_key_fields(ctx.params, KeyChange, cleared)

    async def act(store: OpenedStore) -> KeyRecord:
        await remark_on_team(store, team, is_made=True)
        return await keys.change_key(store, cli_actor(), key, wanted)

    record = with_secrets(data_dir, act)
    _print_record(record, as_json=as_json)


@app.command()
def rotate(
    key: KeyArgument,
    grace: Annotated[
        str, typer.Option(metavar="SPAN", help="How long the old key still works; 0: all old keys stop now.")
    ] = "24h",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret and print it. Its id, limits and history stay.

    \b
    KEY=$(imagegate keys rotate key_01k… --grace 2h)
    """
    grace_s = options.read_grace(grace)
    rotated = with_secrets(data_dir, lambda store: keys.rotate_key(store, cli_actor(), key, grace_s))
    _print_secret(rotated, as_json=as_json)
    _tell_former("The old key", "works", grace_s)


@app.command()
def webhook_secret(
    key: KeyArgument,
    is_rotated: Annotated[bool, typer.Option("--rotate", help="Make a new one.")] = False,
    grace: Annotated[
        str, typer.Option(metavar="SPAN", help="How long the old one signs messages too; 0: not at all.")
    ] = "24h",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the secret by which a receiver verifies a key's webhooks.

    \b
    SECRET=$(imagegate keys webhook-secret key_01k…)
    """
    grace_s = options.read_grace(grace)

    async def act(store: OpenedStore) -> WebhookSecret:
        await check_signing_key(store.redis, store.store_url, store.signing_key)
        return await keys.show_webhook_secret(store, cli_actor(), key, rotates=is_rotated, grace_s=grace_s)

    found = with_secrets(data_dir, act)
    if as_json:
        print_json(found)
        return
    typer.echo(found.secret)
    if is_rotated:
        _tell_former("The old secret", "signs messages too", grace_s)


@app.command()
def disable(key: KeyArgument, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Refuse a key, within a second; `enable` undoes it."""
    wanted = KeyChange(enabled=False)
    record = with_secrets(data_dir, lambda store: keys.change_key(store, cli_actor(), key, wanted))
    _print_record(record, as_json=as_json)


@app.command()
def enable(key: KeyArgument, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let a disabled key work again."""
    wanted = KeyChange(enabled=True)
    record = with_secrets(data_dir, lambda store: keys.change_key(store, cli_actor(), key, wanted))
    _print_record(record, as_json=as_json)


@app.command()
def delete(
    key: KeyArgument, is_sure: options.IsSure = False, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Delete a key and its limits for ever. Its spending stays in history and usage."""

    async def act(store: OpenedStore) -> tuple[KeyWithLimits, Deleted]:
        found = await keys.show_key(store, key)
        team = f", team {found.team}" if found.team else ""
        output.confirm(f"Delete the key {found.name} ({found.id}{team}) and its limits for ever?", is_sure=is_sure)
        return found, await keys.delete_key(store, cli_actor(), found.id)

    found, deleted = with_secrets(data_dir, act)
    if as_json:
        print_json(deleted)
        return
    typer.echo(f"{found.id} ({found.name}) is deleted.", err=True)


def _print_secret(made: KeyWithSecret, *, as_json: bool) -> None:
    """Print the secret alone on stdout, for scripts, and a note for people on stderr; or all of it as JSON."""
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made.id} for {made.name}. Keep the key: it cannot be shown again.", err=True)
    typer.echo(made.key)


def _tell_former(subject: str, verb: str, grace_s: int) -> None:
    """Print on stderr the time until which the former secret counts, or that it counts no more."""
    if grace_s == 0:
        output.say(f"{subject} counts no more.")
        return
    until = datetime.now(UTC) + timedelta(seconds=grace_s)
    output.say(f"{subject} {verb} until {until:%Y-%m-%d %H:%M} UTC; --grace 0 ends that now.")


def _print_record(record: KeyRecord, *, as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        print_rows(_TABLE, [_cells(record)])


def _cells(record: KeyRecord) -> tuple[str, ...]:
    return (
        record.id,
        record.name,
        record.team or "-",
        f"{record.hint}…",
        _listed(record.models),
        show_moment(record.created),
        show_moment(record.expires),
        _state(record),
    )


def _fields(record: KeyRecord) -> list[tuple[str, str]]:
    fields = [
        ("id", record.id),
        ("name", record.name),
        ("team", record.team or "-"),
        ("key", f"{record.hint}…"),
        ("state", _state(record)),
        ("created", show_moment(record.created)),
        ("rotated", show_moment(record.rotated)),
        ("expires", show_moment(record.expires)),
        ("models", _listed(record.models)),
        ("upstreams", _listed(record.upstreams)),
        ("addresses", _listed(record.addresses)),
        ("webhook", record.webhook or "-"),
        ("max_quality", record.max_quality or "-"),
        ("max_pixels", str(record.max_pixels or "-")),
        ("max_n", str(record.max_n or "-")),
        ("may_pin_upstream", "yes" if record.may_pin_upstream else "no"),
    ]
    return fields + [(f"metadata {name}", value) for name, value in record.metadata.items()]


def _limits(found: KeyWithLimits) -> list[tuple[str, str]]:
    """A row for each of the key's own limits: its name, the limit and the rest."""
    return [(one.limit, f"{one.ceiling}, {one.left} left") for one in found.standing if one.scope == "key"]


def _state(record: KeyRecord) -> str:
    state = "enabled" if record.enabled else "disabled"
    if record.enabled and record.has_expired(datetime.now(UTC)):
        state = "expired"
    return f"{state}, demo" if record.demo else state


def _listed(names: tuple[str, ...] | None) -> str:
    return "all" if names is None else ", ".join(names)
