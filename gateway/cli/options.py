"""The options of keys, limits and reports, with one name each for all commands, and their parsers.

An error names the option. This module never opens the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.callers.key_record import KeyChange
from gateway.dollars import parse_usd
from gateway.jobs.job import MIN_PIXELS
from gateway.money.ledger_results import Scope
from gateway.money.limits import LIMITS, RATES
from gateway.store.windows import read_duration

MOST = 10**12

TeamOption = Annotated[str | None, typer.Option(help="The team whose limits it shares.", show_default=False)]
Models = Annotated[
    list[str] | None,
    typer.Option("--models", "--model", help="Models it may use, with commas or one by one; default: all."),
]
Upstreams = Annotated[
    list[str] | None,
    typer.Option("--upstreams", "--upstream", help="Upstreams that may serve it, likewise; default: all."),
]
MaxQuality = Annotated[
    str | None, typer.Option(metavar="QUALITY", help="The best quality it may ask for: low, medium, high.")
]
MaxPixels = Annotated[int | None, typer.Option(help="The most pixels an image may have, such as 1048576.")]
MaxN = Annotated[int | None, typer.Option(help="The most images of one request.")]
MayPin = Annotated[
    bool | None,
    typer.Option("--may-pin-upstream/--may-not-pin-upstream", help="Let it choose its upstream by a header, or not."),
]
Expires = Annotated[
    str | None, typer.Option(metavar="WHEN", help="The time it ends: in 30d, 12h or 45m, or at 2027-01-31T18:00Z.")
]
AddressOption = Annotated[list[str] | None, typer.Option(help="An address or network it may be used from; repeatable.")]
Webhook = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The address for messages about the end of its tasks.", show_default=False),
]
Meta = Annotated[list[str] | None, typer.Option(metavar="K=V", help="A note of your own; repeatable.")]

UsdTotal = Annotated[str | None, typer.Option(metavar="USD", help="Dollars in total, such as 1.50.")]
UsdMonth = Annotated[str | None, typer.Option(metavar="USD", help="Dollars a calendar month.")]
UsdWeek = Annotated[str | None, typer.Option(metavar="USD", help="Dollars a week, from Monday.")]
UsdDay = Annotated[str | None, typer.Option(metavar="USD", help="Dollars a day.")]
ImagesMonth = Annotated[int | None, typer.Option(help="Images a calendar month.")]
ImagesDay = Annotated[int | None, typer.Option(help="Images a day.")]
ImagesMinute = Annotated[int | None, typer.Option("--images-per-minute", help="Images a minute.")]
RequestsMinute = Annotated[int | None, typer.Option("--requests-per-minute", help="Requests a minute.")]
Concurrent = Annotated[int | None, typer.Option("--concurrent-requests", help="Requests at a time.")]

OfKey = Annotated[str | None, typer.Option("--key", help="Of this key, by id or name.", show_default=False)]
OfTeam = Annotated[str | None, typer.Option("--team", help="Of this team's keys together.", show_default=False)]
OfEveryone = Annotated[bool, typer.Option("--everyone", help="Of all keys together.")]

IsSure = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; a script is never asked.")]

AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Since = Annotated[str, typer.Option(help="The beginning: 24h, 7d or 4w ago, or a date as in 2026-11-04.")]
Until = Annotated[str | None, typer.Option(help="The end, not included; default: now.", show_default=False)]
OnlyKey = Annotated[str | None, typer.Option("--key", help="Only of this key, by id or name.", show_default=False)]
OnlyTeam = Annotated[
    str | None, typer.Option("--team", help="Only of this team; an empty one: of keys without.", show_default=False)
]
OnlyModel = Annotated[
    str | None, typer.Option("--model", help="Only of this model, by the name that was sent.", show_default=False)
]
OnlyUpstream = Annotated[
    str | None, typer.Option("--upstream", help="Only where this upstream was called.", show_default=False)
]
Most = Annotated[
    int | None, typer.Option(min=1, help="How many to show; default: 50 in a table, otherwise all.", show_default=False)
]

TABLE_ROWS = 50
"""Rows of a table, or of lines with tabs, without `--most`. JSON and CSV have every row."""

_OPTIONS = {
    "addresses": "--address",
    "metadata": "--meta",
    "images_minute": "--images-per-minute",
    "requests_minute": "--requests-per-minute",
}


def option_of(field: str) -> str:
    """The option of a field or a limit."""
    return _OPTIONS.get(field, f"--{field.replace('_', '-')}")


def bad_option(field: str, problem: str) -> typer.BadParameter:
    """An error that names the option."""
    return typer.BadParameter(problem, param_hint=option_of(field))


def read_key_fields(typed: Mapping[str, Any], kind: type[KeyChange], cleared: tuple[str, ...] = ()) -> KeyChange:
    """Check the fields of a key from the command line, and return them as the model `kind`.

    A field in `cleared` becomes None, `metadata` an empty dict. Raises BadParameter with the option's name.
    """
    given: dict[str, Any] = {
        "name": typed.get("name"),
        "team": typed["team"],
        "models": _split(typed["models"]),
        "upstreams": _split(typed["upstreams"]),
        "max_quality": typed["max_quality"],
        "max_pixels": typed["max_pixels"],
        "max_n": typed["max_n"],
        "may_pin_upstream": typed["may_pin_upstream"],
        "expires": _read_expiry(typed["expires"]),
        "addresses": typed["address"] or None,
        "webhook": typed["webhook"],
        "metadata": _read_pairs(typed["meta"]),
    }
    values = {name: value for name, value in given.items() if value is not None}
    try:
        return kind.model_validate(values | {field: {} if field == "metadata" else None for field in cleared})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise bad_option(str(first["loc"][0]), _explain(str(first["loc"][0]), first)) from error


def read_limits(typed: Mapping[str, Any]) -> dict[str, int]:
    """The limits from the command line, in µ$ and in numbers. Raises BadParameter with the option's name."""
    given = {limit: typed[limit] for limit in LIMITS if typed[limit] is not None}
    return {limit: _read_limit(limit, value) for limit, value in given.items()}


def read_grace(text: str) -> int:
    """The seconds of a grace time such as 4w, 30d, 12h, 45m or 0. Raises BadParameter for other texts."""
    span = read_duration(text)
    if span is None and text != "0":
        raise bad_option("grace", f"{text!r} is no time span; right is 30d, 12h, 45m or 0")
    return 0 if span is None else round(span.total_seconds())


def _read_limit(limit: str, value: str | int) -> int:
    try:
        number = parse_usd(value) if isinstance(value, str) else value
    except ValueError as error:
        raise bad_option(limit, str(error)) from error
    least = 1 if limit in RATES else 0
    if not least <= number <= (60_000_000 if limit in RATES else MOST):
        raise bad_option(limit, f"must be {least} or more" if number < least else "is more than can be counted")
    return number


def _read_expiry(text: str | None) -> str | datetime | None:
    """The end of a key: the instant after a time span from now. A text that is no time span stays as it is."""
    if text is None:
        return None
    span = read_duration(text)
    return text if span is None else datetime.now(UTC) + span


def _explain(field: str, mistake: ErrorDetails) -> str:
    """One of pydantic's errors about a field of a key as a message, with the given and a right value."""
    typed = mistake["input"]
    if field == "expires":
        return f"{typed!r} is no time; write a span from now such as 30d or 12h, or a time such as 2027-01-31T18:00Z"
    if field == "max_quality":
        return f"{typed!r} is no quality; it is one of low, medium, high"
    if mistake["type"] in ("greater_than_equal", "less_than_equal"):
        bounds = {"max_n": "1 to 10", "max_pixels": f"{MIN_PIXELS} or more"}
        return f"{typed} is not allowed; write a number of {bounds[field]}"
    if mistake["type"] == "too_long":
        return f"too many; at most {mistake['ctx']['max_length']}"
    if mistake["type"] == "string_too_long":
        return f"too long; at most {mistake['ctx']['max_length']} characters"
    return str(mistake["msg"]).removeprefix("Value error, ")


def _split(given: list[str] | None) -> list[str] | None:
    return [name for text in given for name in text.split(",") if name] if given else None


def _read_pairs(given: list[str] | None) -> dict[str, str] | None:
    if not given:
        return None
    pairs = [text.partition("=") for text in given]
    if wrong := next((name for name, sign, _ in pairs if not sign), None):
        raise bad_option("metadata", f"{wrong!r} has no value; write it as key=value")
    return {name: value for name, _, value in pairs}


def check_format(*, as_json: bool, as_csv: bool) -> None:
    """Raise BadParameter for `--json` and `--csv` at once."""
    if as_json and as_csv:
        raise typer.BadParameter("choose --json or --csv")


def refuse_before_command(context: typer.Context) -> None:
    """Raise BadParameter for options that stand before a command of a group: the command would not get them."""
    if any(value not in (None, False) for value in context.params.values()):
        raise typer.BadParameter(f"write the options after `{context.invoked_subcommand}`")


def read_scope(key: str | None, team: str | None, *, is_everyone: bool) -> Scope:
    """The one scope from the command line. Raises BadParameter for none or several."""
    if sum((bool(key), bool(team), is_everyone)) != 1:
        raise typer.BadParameter("give one of --key KEY, --team NAME or --everyone")
    return Scope(key=key or "", team=team or "")
