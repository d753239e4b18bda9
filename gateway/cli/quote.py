"""`imagegate quote`: the price of a request at each upstream, its size there, and the reasons for the order.

Reads the catalogue and, if it runs, the store. Sends nothing, starts nothing, and knows no limit of any key.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.catalogue.catalogue import Catalogue, explain_unknown_model, load
from gateway.catalogue.document import STRATEGIES, Strategy
from gateway.catalogue.rules import CallerIdentity
from gateway.cli.display import Column, print_rows
from gateway.cli.store import AsJson, DataDir, running_store
from gateway.errors import PublicError
from gateway.health.condition import refuse_paused
from gateway.health.health import Health, TargetStore
from gateway.jobs import parameters
from gateway.jobs.job import ImageJob, Operation, Size, parse_size
from gateway.jobs.parameter_table import PICTURE_NAMES
from gateway.pictures.picture import Picture
from gateway.pictures.spool import Blob
from gateway.process.data_folder import DataFolder
from gateway.process.settings import Settings, StartRefused, load_settings, variable
from gateway.routing import description
from gateway.routing import plan as routing
from gateway.routing.plan import Circumstances, Plan, narrow
from gateway.routing.rights import Rights
from gateway.server import demo
from gateway.store.client import CommandQueue, StoreUnavailable

_EXAMPLE = "these are the simulator's example prices, and no vendor's"
_UNREAD = "the present state of the upstreams is not known"
_NOWHERE = "http://127.0.0.1"
_COLUMNS = (
    Column("target"),
    Column("price", is_number=True),
    Column("an image", is_number=True),
    Column("size made"),
    Column("how"),
    Column("why"),
)

_OWN_OPTIONS = {
    **{name: f"--{name}" for name in ("prompt", "model", "n", "size", "resolution", "quality", "mask")},
    "output_format": "--format",
    "image": "--references",
    "images": "--references",
}
"""The parameters that have an option of the command; `--param` takes the others."""

_WHOLE = {"target", "price", "an image"}


_Params = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Any other parameter of a request, such as moderation=low; repeatable."),
]


class NothingToQuote(StartRefused):
    """No target is configured, the model does not exist, the request is wrong, or no target can serve it."""


@dataclass(frozen=True, slots=True)
class _Typed:
    """The request to quote."""

    job: ImageJob
    model: str
    circumstances: Circumstances


@dataclass(frozen=True, slots=True)
class _Known:
    """The catalogue and the health of its targets.

    `unread` is the reason why the health is not known, `changed` the difference between the running gateway's catalogue
    and this one; "" if there is none.
    """

    catalogue: Catalogue
    health: Health | None
    unread: str
    changed: str


def quote(  # noqa: PLR0913 (each option is a parameter)
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT, a ratio such as 16:9, or auto.")] = "auto",
    quality: Annotated[str, typer.Option(help="low, medium, high or auto.")] = "auto",
    n: Annotated[str, typer.Option(metavar="N", help="How many images.")] = "1",
    resolution: Annotated[
        str | None, typer.Option(metavar="TIER", help="1K, 2K or 4K, for a ratio.", show_default=False)
    ] = None,
    operation: Annotated[str, typer.Option(help="generation or edit.")] = "generation",
    references: Annotated[int, typer.Option(min=0, max=16, help="Images of an edit; default: 1.")] = 0,
    reference_size: Annotated[str, typer.Option(metavar="SIZE", help="Pixels of each of them.")] = "1024x1024",
    mask: Annotated[bool, typer.Option("--mask", help="An edit with a mask.")] = False,
    output_format: Annotated[str, typer.Option("--format", help="png, jpeg or webp.")] = "png",
    param: _Params = None,
    prompt: Annotated[str, typer.Option(help="For upstreams whose price depends on its length.")] = "a cat in the rain",
    model: Annotated[str | None, typer.Option(help="Default: the catalogue's default model.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="cost, priority, weighted or latency, as X-Gateway-Route says.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(help="Only this upstream, as X-Gateway-Upstream says.", show_default=False)
    ] = None,
    team: Annotated[str | None, typer.Option(help="A team, for the rules that name it.", show_default=False)] = None,
    key: Annotated[str | None, typer.Option(help="A key's id or name, likewise.", show_default=False)] = None,
    is_demo: Annotated[
        bool, typer.Option("--demo", help="Without any upstream key, quote the simulator's example prices.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the price of a request, and the upstreams that would serve it now. Nothing is sent.

    \b
    imagegate quote --size 2048x2048 --quality high --n 4
    imagegate quote --operation edit --references 2 --mask --json
    """
    known = _read_known(data_dir, is_demo=is_demo)
    fields = {"prompt": prompt, "size": size, "quality": quality, "n": n, "output_format": output_format}
    fields |= {name: text for name, text in (("resolution", resolution), ("model", model)) if text}
    fields |= dict(map(_read_pair, param or ()))
    if references or mask:
        operation = "edit"
    try:
        typed = _Typed(
            job=_read_job(
                known.catalogue, fields, operation, _make_references(references, reference_size), is_masked=mask
            ),
            model=model or known.catalogue.document.default_model,
            circumstances=_make_circumstances(known, CallerIdentity(key or "", key or "", team or ""), strategy),
        )
        plan = _plan(known, typed, upstream)
    except PublicError as error:
        raise NothingToQuote(error.message) from error
    found = description.describe_plan(plan, typed.job, typed.model, plan.refusal)
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(found)


def _read_known(data_dir: Path | None, *, is_demo: bool) -> _Known:
    env = dict(os.environ) | ({} if data_dir is None else {variable("data_dir"): str(data_dir)})
    settings = load_settings(env)
    catalogue = _load(settings, env, is_demo=is_demo)
    changed = DataFolder(settings.data_dir).compare_catalogue(settings.config)
    return _Known(catalogue, *_read_health(settings, catalogue), changed or "")


def _load(settings: Settings, env: dict[str, str], *, is_demo: bool) -> Catalogue:
    catalogue = load(settings.config, env)
    if catalogue.targets:
        return catalogue
    if not is_demo:
        raise NothingToQuote(
            f"No upstream key is set. Set {demo.name_needed_keys(catalogue.document)}; or quote the simulator's "
            "example prices: imagegate quote --demo"
        )
    return load(settings.config, env, simulator_url=_NOWHERE)


def _read_health(settings: Settings, catalogue: Catalogue) -> tuple[Health | None, str]:
    """Read the health of the targets from the running gateway's store, and return it with "".

    If no store runs or answers, return None and the reason.
    """
    url = running_store(settings)
    if url is None:
        return None, f"{_UNREAD}: no gateway runs in {settings.data_dir}"
    try:
        return asyncio.run(_ask_health(url, catalogue)), ""
    except StoreUnavailable as refusal:
        return None, f"{_UNREAD}: Redis is unavailable: {refusal}"


async def _ask_health(url: str, catalogue: Catalogue) -> Health:
    command_queue = CommandQueue(url)
    try:
        health = Health(TargetStore(command_queue), catalogue.targets, lease_s=catalogue.document.accounting.lease)
        await health.read()
    finally:
        await command_queue.aclose()
    return health


def _narrow(plan: Plan, health: Health | None, team: str) -> tuple[Plan, str]:
    """Return the plan without targets that take no call now, and "". Without `health` the whole plan stays.

    While everything or the team is paused, the plan has a refusal, and the text is its message. If no target takes a
    call, return the whole plan and the reason.
    """
    if health is None:
        return plan, ""
    found = narrow(plan, health.find_blocks(), health.load, refuse_paused(health.pauses, team))
    return found if found.choices else plan, found.refusal.message.removesuffix(".") if found.refusal else ""


def _read_job(
    catalogue: Catalogue, fields: dict[str, str], operation: str, references: tuple[Picture, ...], *, is_masked: bool
) -> ImageJob:
    """The job of a request with these fields, as the gateway itself reads it. Raises PublicError, BadParameter."""
    if operation not in ("generation", "edit"):
        raise typer.BadParameter(f"{operation!r} is none; right is generation or edit", param_hint="--operation")
    kind = cast("Operation", operation)
    params = parameters.read_params(
        fields, kind, is_text=True, refuse_unknown=True, scaled_sizes=catalogue.scaled_sizes
    )
    taken = references if kind == "edit" else ()
    return parameters.make_job(params, taken, references[0] if is_masked else None)


def _make_references(count: int, size: str) -> tuple[Picture, ...]:
    """Pictures of this size without bytes, at least one: a plan reads their pixels alone. Raises BadParameter."""
    found = parse_size(size)
    if found is None:
        raise typer.BadParameter(f"{size!r} is no size; right is 1024x1024", param_hint="--reference-size")
    return tuple(_imagine(found) for _ in range(max(count, 1)))


def _imagine(size: Size) -> Picture:
    return Picture(Blob(0, data=b""), "png", size.width, size.height, orientation=1, has_alpha=True)


def _make_circumstances(known: _Known, identity: CallerIdentity, strategy: str | None) -> Circumstances:
    medians = known.health.medians() if known.health else {}
    # The draw keeps no secret.
    return Circumstances(identity, _read_strategy(strategy), medians, random.random())  # noqa: S311


def _read_pair(text: str) -> tuple[str, str]:
    """The name and the value of a parameter without an option of its own. Raises BadParameter."""
    name, sign, value = text.partition("=")
    if not sign:
        raise typer.BadParameter(f"{text!r} has no `=`; right is moderation=low", param_hint="--param")
    if option := _OWN_OPTIONS.get(PICTURE_NAMES.get(name, name)):
        raise typer.BadParameter(f"`{name}` has an option of its own: {option}", param_hint="--param")
    return name, value


def _read_strategy(text: str | None) -> Strategy | None:
    found = next((one for one in STRATEGIES if one == text), None)
    if text and found is None:
        raise typer.BadParameter(f"{text!r} is none; right is one of {', '.join(STRATEGIES)}", param_hint="--strategy")
    return found


def _plan(known: _Known, typed: _Typed, upstream: str | None) -> Plan:
    """The plan for this moment, with every remark in its note. Raises PublicError, and NothingToQuote for a model."""
    found = known.catalogue.find_model(typed.model)
    if found is None:
        raise NothingToQuote(explain_unknown_model(typed.model, known.catalogue.model_names()))
    rights = Rights(pinned=upstream)
    whole = routing.plan(typed.job, typed.model, found[0], known.catalogue, rights, typed.circumstances)
    plan, kept_note = _narrow(whole, known.health, typed.circumstances.identity.team)
    notes = (plan.note, kept_note, known.unread, known.changed, _EXAMPLE if known.catalogue.is_simulated else "")
    return replace(plan, note="; ".join(note for note in notes if note) or None)


def _print(found: dict[str, Any]) -> None:
    """Print a table with a headline on a terminal; elsewhere lines with tabs, for other programs."""
    rows = [_show_choice(one) for one in found["choices"]]
    rows += [(one["target"], "-", "-", "-", "-", f"not: {one['reason']}") for one in found["rejections"]]
    if not sys.stdout.isatty():
        print_rows(_COLUMNS, rows)
        if found["note"]:
            typer.echo(f"imagegate: {found['note']}", err=True)
        return
    table = Table(title=Text(_headline(found)), caption=Text(found["note"]) if found["note"] else None)
    for column in _COLUMNS:
        table.add_column(column.name, justify="right" if column.is_number else "left", no_wrap=column.name in _WHOLE)
    for row in rows:
        # Text, since names in a catalogue may look like rich's markup.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _headline(found: dict[str, Any]) -> str:
    rule = f", by {found['rule']}" if found["rule"] else ""
    asked = f"{found['operation']}, n={found['n']}, {found['size']}, quality {found['quality']}"
    return f"{found['model']}: {asked}; strategy {found['strategy']}{rule}"


def _show_choice(one: dict[str, Any]) -> tuple[str, ...]:
    details = [*one["compensation"], *([f"drops {', '.join(one['dropped'])}"] if one["dropped"] else [])]
    return (
        one["target"],
        f"${one['price_usd']}" if one["price_usd"] else "unknown",
        f"${one['price_per_image_usd']}" if one["price_per_image_usd"] else "unknown",
        one["size"] or "its own choice",
        "; ".join(details) or "one call",
        one["reason"],
    )
