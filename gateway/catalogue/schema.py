"""The catalogue's JSON schema, and the messages for values that do not fit it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

from gateway.catalogue.document import Document


def schema() -> dict[str, Any]:
    """The JSON schema of a catalogue, for editors; `config/gateway.schema.json` is this."""
    return Document.model_json_schema()


def render_schema() -> str:
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


def explain_mistake(mistake: ErrorDetails) -> str:
    """One of Pydantic's errors as a message, with the right form where one is known. It never quotes a key."""
    kind, where, context = mistake["type"], mistake["loc"], mistake.get("ctx", {})
    if kind == "extra_forbidden":
        return f"there is no such field here; {_suggest(str(where[-1]), list_fields(where[:-1]))}"
    if kind == "string_pattern_mismatch":
        return _EXPECTED_KEY if where[-1] == "key" else "must be of letters, digits and `.` `_` `/` `-`, up to 100"
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind == "too_short":
        return f"needs at least {context.get('min_length', 1)} entry"
    if (form := _FORMS.get(kind)) is not None:
        return form.format(**context)
    text = str(mistake["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


_EXPECTED_KEY = (
    "must be `env:NAME`, the name of an environment variable that holds the key, or `file:/path`. A key itself must "
    "not be in this file: if it is one, take it out, and replace it at the vendor if others could read the file"
)

_FORMS = {
    "missing": "is required",
    "int_type": "must be a whole number, such as 3",
    "int_parsing": "must be a whole number, such as 3",
    "int_from_float": "must be a whole number, such as 3",
    "float_type": "must be a number, such as 1.5",
    "float_parsing": "must be a number, such as 1.5",
    "decimal_type": 'must be an amount of dollars, such as "0.04"',
    "decimal_parsing": 'must be an amount of dollars, such as "0.04"',
    "bool_type": "must be true or false",
    "string_type": "must be a text; put it in quotes if it looks like a number",
    "tuple_type": "must be a list, such as [a, b]",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must hold names, each with its value, as in `name: value`",
    "model_type": "must hold fields, each with its value, as in `field: value`",
    "model_attributes_type": "must hold fields, each with its value, as in `field: value`",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
}
"""The right form by the kind of Pydantic's error, with its numbers in it."""


def _suggest(name: str, known: Sequence[str]) -> str:
    if near := difflib.get_close_matches(name, known, n=1):
        return f"did you mean `{near[0]}`?"
    return f"there are {', '.join(known)}" if known else "docs/configuration.md lists them"


def list_fields(where: Sequence[str | int]) -> list[str]:
    """The fields that the section at a path of the catalogue may have; none if the path leads to no section."""
    whole = schema()
    node: dict[str, Any] = whole
    for step in where:
        # Names with a pattern, such as those of models, are `patternProperties`.
        named = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
        found = node.get("items") if isinstance(step, int) else node.get("properties", {}).get(step) or named[0]
        node = _resolve(whole, found) if isinstance(found, dict) else {}
    return list(node.get("properties", {}))


def _resolve(whole: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Follow the reference of a part of the schema; of alternatives take the first that is not null."""
    for one in node.get("anyOf", ()):
        if one.get("type") != "null":
            return _resolve(whole, one)
    name = str(node.get("$ref", "")).rpartition("/")[2]
    return whole["$defs"][name] if name else node
