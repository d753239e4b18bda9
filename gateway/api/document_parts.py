"""Parts that both OpenAPI documents share: the headers of answers, the errors of a route, and their examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.errors import PublicError

ANSWER_HEADERS: Mapping[str, str] = {
    "x-request-id": "The request's id; the log has it too.",
    "x-gateway-task": "The id of the task.",
    "x-gateway-upstream": "The upstreams that made the images, by their names in the catalogue.",
    "x-gateway-calls": "The number of calls that were billed, or may have been.",
    "x-gateway-cost-usd": "The charge in dollars, as in `0.052700`; absent if an upstream's price is unknown.",
    "x-gateway-size": "The requested and the made size, as in `auto->1024x1024`; a third one if it was scaled here.",
    "x-gateway-delivered": "Delivered and requested images, as in `2/3`, if some are missing.",
    "x-gateway-dropped-params": "The parameters that the upstream did not receive.",
    "x-gateway-joined": "`1`: an earlier request began the work, and this one cost nothing.",
    "x-gateway-simulated": "`1`: a simulator answered, and no vendor.",
    "x-ratelimit-limit-requests": "The limit on requests a minute.",
    "x-ratelimit-remaining-requests": "The rest of that limit.",
    "x-ratelimit-reset-requests": "The time until that limit is free again, as in `12s`.",
    "x-ratelimit-limit-images": "The limit on images a minute.",
    "x-ratelimit-remaining-images": "The rest of that limit.",
    "x-ratelimit-reset-images": "The time until that limit is free again, as in `1m2s`.",
    "x-should-retry": "`false`: a retry would fail again or buy again. `true`: a retry gets the answer.",
    "retry-after": "Seconds until the next useful request.",
    "idempotent-replayed": "`true`: the work under this Idempotency-Key had ended before.",
    "location": "The address of the task.",
}
"""Headers of answers, with their meanings. A browser's script of an allowed origin may read all of them."""

_FORMS: Mapping[str, dict[str, Any]] = {
    "x-gateway-calls": {"type": "string", "pattern": "^[0-9]+$"},
    "x-gateway-cost-usd": {"type": "string", "pattern": r"^[0-9]+\.[0-9]{6}$"},
    "x-gateway-delivered": {"type": "string", "pattern": "^[0-9]+/[0-9]+$"},
    "x-gateway-joined": {"type": "string", "enum": ["1"]},
    "x-gateway-simulated": {"type": "string", "enum": ["1"]},
    "x-should-retry": {"type": "string", "enum": ["true", "false"]},
    "retry-after": {"type": "string", "pattern": "^[0-9]+$"},
    "idempotent-replayed": {"type": "string", "enum": ["true"]},
}

RATES = tuple(name for name in ANSWER_HEADERS if name.startswith("x-ratelimit-"))
EVERY_ANSWER = ("x-request-id", "x-gateway-simulated")
OF_ERRORS = (*EVERY_ANSWER, "retry-after", "x-should-retry")


def header_components() -> dict[str, Any]:
    """Every header of ANSWER_HEADERS, for a document's `components.headers`."""
    return {
        name: {
            "description": meaning,
            "required": name == "x-request-id",
            "schema": _FORMS.get(name, {"type": "string"}),
        }
        for name, meaning in ANSWER_HEADERS.items()
    }


def refer_to_headers(names: Iterable[str]) -> dict[str, Any]:
    """The `headers` of an answer, as references to `components.headers`."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def describe_errors(kinds: Iterable[type[PublicError]], headers: Iterable[str] = OF_ERRORS) -> dict[str, Any]:
    """The errors of a route as answers of OpenAPI: one for each status, with the types and codes of its errors."""
    by_status: dict[int, list[type[PublicError]]] = {}
    for kind in dict.fromkeys(kinds):
        by_status.setdefault(kind.status, []).append(kind)
    return {str(status): _describe_status(by_status[status], headers) for status in sorted(by_status)}


def _describe_status(kinds: list[type[PublicError]], headers: Iterable[str]) -> dict[str, Any]:
    facts = {
        "type": {"enum": list(dict.fromkeys(kind.type for kind in kinds))},
        "code": {"enum": list(dict.fromkeys(kind.code for kind in kinds))},
    }
    schema = {"$ref": "#/components/schemas/ErrorAnswer", "properties": {"error": {"properties": facts}}}
    examples = {str(kind.code): {"$ref": f"#/components/examples/{_name_example(kind)}"} for kind in kinds}
    return {
        "description": " ".join(f"`{kind.code}`: {kind.meaning}" for kind in kinds),
        "headers": refer_to_headers(headers),
        "content": {"application/json": {"schema": schema, "examples": examples}},
    }


def share_answers(paths: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the answers in `paths` by references, in place; return the answers for `components.responses`.

    Equal answers become one.
    """
    names: dict[str, str] = {}
    shared: dict[str, Any] = {}
    for operation in (operation for methods in paths.values() for operation in methods.values()):
        answers = operation["responses"]
        for status, answer in answers.items():
            name = names.setdefault(repr(answer), f"{operation['operationId']}_{status}")
            shared[name] = answer
        operation["responses"] = {
            status: {"$ref": f"#/components/responses/{names[repr(answer)]}"} for status, answer in answers.items()
        }
    return shared


def error_examples(kinds: Iterable[type[PublicError]]) -> dict[str, Any]:
    """An example of each kind of error, for a document's `components.examples`."""
    return {_name_example(kind): {"value": kind(kind.meaning).body()} for kind in kinds}


def _name_example(kind: type[PublicError]) -> str:
    # Two statuses share a code.
    return f"{kind.code}_{kind.status}"
