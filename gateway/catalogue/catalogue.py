"""The catalogue: upstreams with their credentials, models, aliases and limits, read from one YAML file and frozen.

`load` refuses a file with mistakes, and states the line of each. `document` and `upstream` define the contents of the
file.
"""

from __future__ import annotations

import difflib
import hashlib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, InstanceOf, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import override

from gateway.catalogue import rules
from gateway.catalogue.capabilities import Profile
from gateway.catalogue.document import Alias, Document, Limits, Model
from gateway.catalogue.pricing import Prices
from gateway.catalogue.schema import explain_mistake
from gateway.catalogue.strict_yaml import YamlMistake, line_of, parse_yaml
from gateway.catalogue.upstream import Credential, Upstream
from gateway.catalogue.vendors import VENDORS, Offer, find_offer
from gateway.jobs.job import Size, parse_size
from gateway.process.settings import StartRefused


class CatalogueError(StartRefused):
    """The catalogue cannot be used. The text has one line for each mistake, with file and, where there is one, line."""

    exit_code = 2

    @override
    def tell(self) -> str:
        return f"This catalogue cannot be used:\n{textwrap.indent(str(self), '  ')}"


_QUOTES = "\"'`"


class KeyFile:
    """A credential's key in a file. A file without a usable key does not replace the last key."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        self._seen: tuple[int, ...] = ()
        self.on_change: Callable[[str], None] = lambda _: None
        """`read` calls it with each new key before it returns the key."""

    def read(self) -> str:
        """Return the key; read the file first if it has changed. Calls `on_change` with a new key.

        A missing, unreadable or wrong file raises nothing: the last key stays.
        """
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if seen != self._seen:
                key = self._path.read_text(encoding="utf-8").strip()
                if key and key != self._key and not _find_flaw(key):
                    self.on_change(key)
                    self._key = key
                self._seen = seen
        except (OSError, UnicodeDecodeError):
            # It is being replaced, or gone: a call with the last key shows if that one still works.
            pass
        return self._key


@dataclass(frozen=True)
class Target:
    """One upstream with one credential, to which the gateway can send a call."""

    upstream: str
    credential: str
    config: Upstream
    profile: Profile
    key: str = field(repr=False)
    key_file: KeyFile | None = field(default=None, repr=False)
    prices: Prices | None = None
    weight: int = 1

    @cached_property
    def label(self) -> str:
        return f"{self.upstream}/{self.credential}"

    @property
    def present_key(self) -> str:
        """The key for a request that is sent now. Reads a key file again if it has changed."""
        return self.key if self.key_file is None else self.key_file.read()

    @property
    def key_digest(self) -> str:
        """16 hex digits that identify the present key without it. The health of one key does not hold for the next."""
        key = self.present_key
        return self._first_digest if key == self.key else _digest_key(key)

    @cached_property
    def _first_digest(self) -> str:
        return _digest_key(self.key)

    @cached_property
    def credential_config(self) -> Credential:
        """The catalogue's entry of this target's credential."""
        return next(one for one in self.config.credentials if one.name == self.credential)

    @cached_property
    def offer(self) -> Offer:
        """The vendor's documented facts of this credential, without the catalogue's corrections."""
        return find_offer(self.config.kind, self.config.model, self.credential_config.group)


class Catalogue(BaseModel):
    """A loaded catalogue: the document, and the targets that have a key. Frozen.

    `not_configured` maps the name of each upstream without any key to the reason.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, defer_build=True)

    document: Document
    targets: tuple[InstanceOf[Target], ...]
    not_configured: dict[str, str]
    is_simulated: bool = False

    @property
    def limits(self) -> Limits:
        return self.document.limits

    def find_model(self, name: str) -> tuple[Model, Alias | None] | None:
        """The model behind a public name or an alias, and that alias; None where there is none."""
        alias = self.document.aliases.get(name)
        model = self.document.models.get(alias.model if alias else name)
        return (model, alias) if model else None

    def scaled_sizes(self, name: str | None) -> frozenset[Size]:
        """The scaled sizes of an alias, empty for a model. For a `name` of None, those of `default_model`."""
        alias = self.document.aliases.get(name or self.document.default_model)
        return frozenset(size for text in alias.scaled_sizes if (size := parse_size(text))) if alias else frozenset()

    def model_names(self) -> list[str]:
        """Every public name with at least one upstream that has a key, models before aliases."""
        on = {target.upstream for target in self.targets}
        models = [name for name, model in self.document.models.items() if on & set(model.upstreams)]
        return models + [name for name, alias in self.document.aliases.items() if alias.model in models]

    def unpriced(self) -> list[str]:
        """The labels of the targets without prices. They serve only keys that have no limit in dollars."""
        return [target.label for target in self.targets if target.prices is None]

    def targets_of(self, model: Model) -> list[Target]:
        return [target for name in model.upstreams for target in self.targets if target.upstream == name]


def _digest_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def explain_unknown_model(name: str, known: Sequence[str]) -> str:
    """A sentence for a name that no model has: the nearest known name, and all of them."""
    near = difflib.get_close_matches(name.lower(), known, n=1)
    guess = f" Did you mean `{near[0]}`?" if near else ""
    return f"The model `{name:.200}` does not exist.{guess} There are {', '.join(known) or 'none'}."


def load(path: Path, env: Mapping[str, str], *, simulator_url: str | None = None) -> Catalogue:
    """Read and check a catalogue, and read the credentials' keys from `env` or from their files.

    With `simulator_url` all targets lead to the simulator with its keys, and no key is read. Raises CatalogueError with
    all mistakes of the file, each as `file:line: field: the mistake`, or with the first text that cannot be a key.
    """
    document = read(path)
    targets: list[Target] = []
    not_configured: dict[str, str] = {}
    for name, upstream in document.upstreams.items():
        missing: list[str] = []
        for credential in upstream.credentials:
            if simulator_url:
                targets.append(_simulated(name, upstream, credential, simulator_url))
                continue
            key = _resolve_key(path, credential.key, env)
            if key:
                targets.append(_target(name, upstream, credential, key, _find_file(credential.key, key)))
            else:
                missing.append(credential.key)
        if len(missing) == len(upstream.credentials):
            not_configured[name] = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
    return Catalogue(
        document=document, targets=tuple(targets), not_configured=not_configured, is_simulated=simulator_url is not None
    )


def read(path: Path) -> Document:
    """Read and check a catalogue's file, but no keys. Raises CatalogueError with the mistakes."""
    try:
        tree, value = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogueError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CatalogueError(f"{path}:{line}: not UTF-8 text") from error
    except YamlMistake as mistake:
        raise CatalogueError(f"{path}:{mistake.line}: {mistake}") from mistake
    try:
        document = Document.model_validate(value)
    except ValidationError as error:
        lines = [
            f"{path}:{line_of(tree, one['loc'])}: {_name(one['loc'])}: {explain_mistake(one)}"
            for one in _find_causes(error)
        ]
        raise CatalogueError("\n".join(lines)) from error
    mistakes = [
        f"{path}:{line_of(tree, where)}: {_name(where)}: {what}"
        for where, what in (
            *_find_dangling(document),
            *_find_repeated(document),
            *rules.find_mistakes(document),
        )
    ]
    if mistakes:
        raise CatalogueError("\n".join(mistakes))
    return document


def _name(where: tuple[str | int, ...]) -> str:
    return ".".join(map(str, where)) or "the catalogue"


def _find_causes(error: ValidationError) -> list[ErrorDetails]:
    """The mistakes that follow from no other: Pydantic also calls a list empty when its only item is wrong."""
    found = error.errors(include_url=False)
    inner = {item["loc"][:depth] for item in found for depth in range(len(item["loc"]))}
    return [item for item in found if item["type"] != "too_short" or item["loc"] not in inner]


def _find_dangling(document: Document) -> list[tuple[tuple[str, ...], str]]:
    found: list[tuple[tuple[str, ...], str]] = []
    upstreams, models = document.upstreams, document.models
    for name, model in models.items():
        found += [
            (("models", name, "upstreams"), f"there is no upstream `{one}`; there are {', '.join(upstreams)}")
            for one in model.upstreams
            if one not in upstreams
        ]
    for name, alias in document.aliases.items():
        if alias.model not in models:
            found.append((("aliases", name), f"there is no model `{alias.model}`; there are {', '.join(models)}"))
        if name in models:
            found.append((("aliases", name), "a model has this name already"))
    if document.default_model not in models and document.default_model not in document.aliases:
        found.append(
            (("default_model",), f"there is no model `{document.default_model}`; there are {', '.join(models)}")
        )
    return found


def _find_repeated(document: Document) -> list[tuple[tuple[str | int, ...], str]]:
    """The mistakes of repeated names: of credentials in an upstream, and of upstreams in a model."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    for name, upstream in document.upstreams.items():
        names = [credential.name for credential in upstream.credentials]
        found += [
            (("upstreams", name, "credentials", index), f"another credential is named `{one}`; give each its `name`")
            for index, one in enumerate(names)
            if one in names[:index]
        ]
    for name, model in document.models.items():
        found += [
            (("models", name, "upstreams", index), f"`{one}` is here twice")
            for index, one in enumerate(model.upstreams)
            if one in model.upstreams[:index]
        ]
    return found


def _resolve_key(path: Path, reference: str, env: Mapping[str, str]) -> str | None:
    """The key that a reference names; None if it is absent, unreadable or empty. Raises CatalogueError without it."""
    kind, _, rest = reference.partition(":")
    try:
        key = env.get(rest, "") if kind == "env" else Path(rest).read_text(encoding="utf-8")
    except OSError:
        return None
    except UnicodeDecodeError:
        key = "\x00"
    key = key.strip()
    if flaw := _find_flaw(key):
        raise CatalogueError(f"{path}: {reference} {flaw}")
    return key or None


def _find_file(reference: str, key: str) -> KeyFile | None:
    kind, _, path = reference.partition(":")
    return KeyFile(Path(path), key) if kind == "file" else None


def _find_flaw(key: str) -> str | None:
    """The reason why a text cannot be a key, without the text; None if it can."""
    if not all("!" <= char <= "~" for char in key):
        return "has a space or a character that no key has"
    if key and (key[0] in _QUOTES or key[-1] in _QUOTES):
        return "has a quotation mark around the key; leave it out"
    if key.startswith(("$", "<", "{")):
        return "holds a placeholder in place of a key"
    return None


def _profile(upstream: Upstream, credential: Credential) -> Profile:
    shipped = find_offer(upstream.kind, upstream.model, credential.group).profile
    known = credential.capabilities
    changes: dict[str, Any] = {
        "max_n": known.max_n,
        "masked_n": known.max_n if shipped.masked_n > 1 else None,
        "edit_quality": known.edit_quality,
        "masked_quality": known.edit_quality if VENDORS[upstream.kind].masks_take_quality else None,
        "max_references": known.max_references,
        "without_masks": None if known.masks is None else "the catalogue switches its masks off",
        "masked_references": None if known.masks is None else (shipped.masked_references or 1) * known.masks,
        "formats": known.formats,
        "passes_user": known.pass_user,
        "backgrounds": (*shipped.backgrounds, "transparent") if known.transparent else None,
        **_sizes(known.sizes),
    }
    return shipped.change(**{name: value for name, value in changes.items() if value is not None})


def _sizes(names: Literal["exact"] | tuple[str, ...] | None) -> dict[str, Any]:
    if not isinstance(names, tuple):
        return {"sizes": names}
    return {
        "sizes": tuple(size for name in names if (size := parse_size(name))),
        "takes_auto_size": "auto" in names,
    }


def _target(name: str, upstream: Upstream, credential: Credential, key: str, key_file: KeyFile | None = None) -> Target:
    return Target(
        upstream=name,
        credential=credential.name,
        config=upstream,
        key=key,
        key_file=key_file,
        profile=_profile(upstream, credential),
        prices=credential.prices or upstream.prices,
        weight=credential.weight,
    )


def _simulated(name: str, upstream: Upstream, credential: Credential, simulator_url: str) -> Target:
    offer = find_offer(upstream.kind, upstream.model, credential.group)
    changes = {
        "base_url": f"{simulator_url.rstrip('/')}/{upstream.kind}",
        "prices": upstream.prices or offer.example_prices,
    }
    return _target(name, upstream.model_copy(update=changes), credential, offer.simulator_key)
