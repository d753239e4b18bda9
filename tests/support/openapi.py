"""An OpenAPI document as tests read it: its operations, its schemas, its codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator

Document = dict[str, Any]


def operations(document: Document) -> dict[tuple[str, str], dict[str, Any]]:
    """Each operation, by method and path."""
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def resolve(document: Document, part: dict[str, Any]) -> dict[str, Any]:
    """A part, or the one that it refers to."""
    while "$ref" in part and part["$ref"].startswith("#/"):
        found: Any = document
        for name in part["$ref"][2:].split("/"):
            found = found[name]
        part = found
    return part


def answers(document: Document, operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The answers of an operation, by status."""
    return {status: resolve(document, answer) for status, answer in operation["responses"].items()}


def validator(document: Document, schema: dict[str, Any]) -> Draft202012Validator:
    """A validator of one schema, which may refer to the document's components."""
    return Draft202012Validator({**schema, "components": {"schemas": document["components"]["schemas"]}})


def codes(document: Document, operation: dict[str, Any], status: str) -> set[str]:
    """The codes of errors that an operation may answer with a status."""
    schema = answers(document, operation)[status]["content"]["application/json"]["schema"]
    return set(schema["properties"]["error"]["properties"]["code"]["enum"])


def references(part: Any) -> Iterator[str]:
    """Each reference within a part."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def components(document: Document) -> set[str]:
    """Each component that can be referred to."""
    kinds = {kind: parts for kind, parts in document["components"].items() if kind != "securitySchemes"}
    return {f"#/components/{kind}/{name}" for kind, parts in kinds.items() for name in parts}
