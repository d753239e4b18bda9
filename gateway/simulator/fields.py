"""Reads request bodies, and accepts only documented fields: name, type and value.

It refuses an undocumented field by its name, and a documented field with an undocumented value.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field

import orjson
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from gateway.simulator.answers import Refusal
from gateway.simulator.exchange import Exchange
from gateway.simulator.uploads import Upload

_LONGEST_PROMPT = 32_000
_MOST_PARTS = 100
_LONGEST_TEXT = 64 * 1024 * 1024
_LONGEST_LOGGED = 4_000
_DIGITS = re.compile(r"[0-9]{1,9}")


@dataclass
class Fields:
    """The scalars and files of one request. In a form every scalar is text; in JSON it has its type."""

    values: dict[str, object]
    files: list[Upload] = field(default_factory=list)
    is_form: bool = False

    def files_named(self, name: str) -> list[Upload]:
        return [upload for upload in self.files if upload.field == name]


def _bad(name: str, value: object, wanted: str) -> Refusal:
    shown = repr(value)[:80]
    return Refusal(400, "invalid_value", f"{name}: {shown} is not {wanted}", param=name, refused=(name,))


def _loggable(value: object) -> object:
    if isinstance(value, str) and len(value) > _LONGEST_LOGGED:
        return value[:_LONGEST_LOGGED] + "…"
    return value


def refuse_query(exchange: Exchange) -> None:
    """No page documents a query parameter, on any path."""
    names = tuple(f"?{name}" for name in exchange.request.query_params)
    if names:
        raise Refusal(400, "unknown_parameter", f"Unknown parameter: {names[0]}", undocumented=names)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name is given twice")
    return values


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


async def read_json(exchange: Exchange) -> Fields:
    """The body as a JSON object."""
    refuse_query(exchange)
    media_type = exchange.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(415, "unsupported_media_type", f"JSON is expected, not {media_type or 'nothing'}")
    raw = await exchange.request.body()
    try:
        values = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        # Text that cannot be encoded, such as half a surrogate pair, cannot be logged or answered.
        orjson.dumps(values)
    except (ValueError, TypeError, RecursionError) as error:
        raise Refusal(400, "invalid_json", "The body is not JSON.", refused=("body",)) from error
    if not isinstance(values, dict):
        raise Refusal(400, "invalid_json", "The body is not a JSON object.", refused=("body",))
    exchange.seen.fields = {name: _loggable(value) for name, value in values.items()}
    return Fields(values)


async def read_form(exchange: Exchange, keeps_files: bool = False) -> Fields:
    """The body as multipart/form-data. It examines the files, and closes those that it does not keep."""
    refuse_query(exchange)
    media_type = exchange.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        raise Refusal(415, "unsupported_media_type", f"A form is expected, not {media_type or 'nothing'}")
    try:
        form = await exchange.request.form(max_files=_MOST_PARTS, max_fields=_MOST_PARTS, max_part_size=_LONGEST_TEXT)
    except (HTTPException, MultiPartException) as error:
        raise Refusal(400, "invalid_form", "The form cannot be read.", refused=("body",)) from error
    fields = await _examine_form(exchange, form)
    if not keeps_files:
        # A request may wait for minutes, with up to 16 open files.
        await form.close()
    return fields


async def _examine_form(exchange: Exchange, form: FormData) -> Fields:
    fields = Fields({}, is_form=True)
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            upload = await exchange.state.drawer.examine(name, value)
            fields.files.append(upload)
            exchange.seen.files.append(upload.show())
        elif name in fields.values:
            raise Refusal(400, "invalid_form", f"{name} is given twice", param=name, refused=(name,))
        else:
            fields.values[name] = value
            exchange.seen.fields[name] = _loggable(value)
    return fields


def refuse_undocumented(fields: Fields, scalars: Collection[str], files: Collection[str] = ()) -> None:
    """Refuse every undocumented name, and a file in place of text."""
    unknown = [name for name in fields.values if name not in scalars]
    unknown += [upload.field for upload in fields.files if upload.field not in files]
    if unknown:
        names = tuple(dict.fromkeys(unknown))
        message = f"Unknown parameter: {', '.join(names)}"
        raise Refusal(400, "unknown_parameter", message, param=names[0], undocumented=names)


def read_text(fields: Fields, name: str) -> str:
    """A required text that is not empty."""
    if name not in fields.values:
        raise Refusal(400, "missing_parameter", f"{name} is required", param=name, refused=(name,))
    value = fields.values[name]
    if not isinstance(value, str) or not value.strip():
        raise _bad(name, value, "a text")
    return value


def read_prompt(fields: Fields) -> str:
    prompt = read_text(fields, "prompt")
    if len(prompt) > _LONGEST_PROMPT:
        raise _bad("prompt", prompt, f"at most {_LONGEST_PROMPT} characters")
    return prompt


def read_choice(fields: Fields, name: str, choices: Collection[str], default: str) -> str:
    """One of the documented words."""
    value = fields.values.get(name, default)
    if not isinstance(value, str) or value not in choices:
        raise _bad(name, value, f"one of {', '.join(choices)}")
    return value


def read_whole(fields: Fields, name: str, least: int, most: int) -> int | None:
    """A whole number: digits in a form, an integer in JSON; never a fraction, a boolean or a text."""
    if name not in fields.values:
        return None
    value = fields.values[name]
    if fields.is_form and isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _bad(name, value, f"a whole number from {least} to {most}")
    return value
