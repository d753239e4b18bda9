"""The keys that each vendor accepts, and the rights of their groups.

A key is one of the words below, or the word and a `-suffix`, so that several credentials can be distinguished.
"""

from dataclasses import dataclass

GPT_IMAGE_2 = "gpt-image-2"
GPT_IMAGE_2_C = "gpt-image-2-c"
GPT_IMAGES = frozenset({GPT_IMAGE_2, "gpt-image-2-2026-04-21", "gpt-image-1.5", "gpt-image-1", "gpt-image-1-mini"})

_PREFIX = "sim-"


@dataclass(frozen=True)
class Key:
    """A known key. `name` is the key without its prefix; the log holds the name, never the key."""

    name: str
    is_direct: bool
    models: frozenset[str]
    knows_any_model: bool = False

    def knows(self, model: str) -> bool:
        return self.knows_any_model or model in self.models


@dataclass(frozen=True)
class _Group:
    is_direct: bool
    models: frozenset[str]
    knows_any_model: bool = False


_GROUPS: dict[str, dict[str, _Group]] = {
    "anyfast": {
        "direct": _Group(is_direct=True, models=frozenset({GPT_IMAGE_2, GPT_IMAGE_2_C})),
        "basic": _Group(is_direct=False, models=frozenset({GPT_IMAGE_2, GPT_IMAGE_2_C})),
        "c": _Group(is_direct=True, models=frozenset({GPT_IMAGE_2_C})),
    },
    "apiany": {"apiany": _Group(is_direct=True, models=frozenset({GPT_IMAGE_2}))},
    "openai": {
        "openai": _Group(is_direct=True, models=GPT_IMAGES),
        "compatible": _Group(is_direct=True, models=GPT_IMAGES, knows_any_model=True),
    },
}


def find_key(upstream: str, authorization: str | None) -> Key | None:
    """The key of an `Authorization` header at this vendor; None when the vendor does not know it."""
    scheme, _, secret = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not secret.startswith(_PREFIX):
        return None
    name = secret.removeprefix(_PREFIX)
    word, dash, suffix = name.partition("-")
    group = _GROUPS[upstream].get(word)
    if group is None or (dash and not suffix):
        return None
    return Key(name, group.is_direct, group.models, group.knows_any_model)


def name_key(authorization: str | None) -> str | None:
    """The name of a sent key at any vendor; `unknown` for an unknown one."""
    if authorization is None:
        return None
    for upstream in _GROUPS:
        key = find_key(upstream, authorization)
        if key is not None:
            return key.name
    return "unknown"
