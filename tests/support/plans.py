"""What the tests of plans share: the shipped catalogue, with changes, and jobs without any bytes."""

import itertools
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gateway.catalogue.capabilities import Fit
from gateway.catalogue.catalogue import Catalogue, Target, load
from gateway.catalogue.strict_yaml import parse_yaml
from gateway.catalogue.vendors import find_offer
from gateway.jobs.job import ImageJob, Operation, Passed, Shape, Size
from gateway.pictures.picture import Picture
from gateway.pictures.spool import Blob
from gateway.routing import plan as routing
from gateway.routing.plan import Circumstances, Plan
from gateway.routing.rights import Rights

SHIPPED = Path(__file__).parents[2] / "config" / "gateway.yaml"
KEYS = {"ANYFAST_API_KEY": "k1", "ANYFAST_C_API_KEY": "k2", "APIANY_API_KEY": "k3"}


def shipped(
    *,
    group: str = "direct",
    capabilities: Mapping[str, Any] | None = None,
    without: str = "",
    rules: Sequence[Mapping[str, Any]] = (),
    has_prices: bool = False,
    **model: Any,
) -> Catalogue:
    """The shipped catalogue with all keys but `without`; Anyfast's in `group`, other values for the first model."""
    _, raw = parse_yaml(SHIPPED.read_text())
    raw["rules"] = list(rules)
    raw["models"]["gpt-image-2"].update(model)
    for upstream in raw["upstreams"].values():
        upstream["credentials"][0]["capabilities"] = dict(capabilities or {})
        if upstream["kind"] == "anyfast":
            upstream["credentials"][0]["group"] = group
        if has_prices:
            upstream["prices"] = example_prices(upstream["kind"], upstream["model"])
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(json.dumps(raw))
        file.flush()
        return load(Path(file.name), {name: key for name, key in KEYS.items() if name != without})


def example_prices(kind: str, model: str) -> dict[str, Any]:
    """What the simulator charges."""
    return find_offer(kind, model, "direct").example_prices.model_dump(exclude_none=True)


UPSTREAMS = {
    "official": "anyfast",
    "basic": "anyfast-basic",
    "variant": "anyfast-c",
    "tasks": "apiany",
    "openai": "openai",
}
"""The upstreams of `every_kind`, by their names in `tests.support.vendor_pages`."""

OPENAI = {
    "kind": "openai",
    "base_url": "https://api.openai.com",
    "model": "gpt-image-2",
    "credentials": [{"key": "env:OPENAI_API_KEY"}],
}


def every_kind() -> Catalogue:
    """The shipped upstreams and a key outside the Direct group, with example prices; `all`, and each as a model."""
    _, raw = parse_yaml(SHIPPED.read_text())
    upstreams = raw["upstreams"]
    upstreams["anyfast-basic"] = upstreams["anyfast"] | {"credentials": [{"key": "env:BASIC_API_KEY"}]}
    upstreams["openai"] = dict(OPENAI)
    for upstream in upstreams.values():
        upstream["prices"] = example_prices(upstream["kind"], upstream["model"])
    models = {name: {"upstreams": [upstream]} for name, upstream in UPSTREAMS.items()}
    raw |= {"models": models | {"all": {"upstreams": list(UPSTREAMS.values())}}, "aliases": {}, "default_model": "all"}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(json.dumps(raw))
        file.flush()
        return load(Path(file.name), KEYS | {"BASIC_API_KEY": "k4", "OPENAI_API_KEY": "k5"})


def target(upstream: str, catalogue: Catalogue | None = None) -> Target:
    return next(one for one in (catalogue or shipped()).targets if one.upstream == upstream)


def plan(
    job: ImageJob,
    catalogue: Catalogue | None = None,
    model: str = "gpt-image-2",
    rights: Rights | None = None,
    around: Circumstances | None = None,
) -> Plan:
    catalogue = catalogue or shipped()
    found = catalogue.find_model(model)
    assert found
    return routing.plan(job, model, found[0], catalogue, rights, around)


def picture(width: int = 1024, height: int = 1024) -> Picture:
    return Picture(Blob(0, data=b""), "png", width, height, 1, has_alpha=True)


def make_job(operation: Operation = "generation", *, images: int = 1, masked: bool = False, **values: Any) -> ImageJob:
    """A job; an edit has `images` references, square ones unless `references` are given."""
    references = tuple(picture() for _ in range(images)) if operation == "edit" else ()
    defaults = {"references": references, "mask": picture() if masked else None}
    return ImageJob(**({"operation": operation, "prompt": "a fox"} | defaults | values))


LOW_MODERATION = (Passed("moderation", "low"),)


def facts_of(found: Fit) -> dict[str, Any]:
    """What a fit says and what it sends, by the fields' names."""
    return {one.name: getattr(part, one.name) for part in (found, found.sent) for one in fields(part)}


SQUARE, WIDE = picture(), picture(2000, 900)
OPERATIONS: list[dict[str, Any]] = [
    {"operation": "generation"},
    {"operation": "edit", "references": (WIDE,)},
    {"operation": "edit", "references": (WIDE, SQUARE)},
    {"operation": "edit", "references": (SQUARE,), "mask": SQUARE},
]
ASKED_SIZES = [None, Size(1024, 1024), Size(1920, 1088), Shape(16, 9, "2K"), Shape(7, 5, "4K")]
COMBINATIONS: list[dict[str, Any]] = [
    {**operation, "n": n, "size": size, "quality": quality, "output_format": output_format}
    for operation, n, size, quality, output_format in itertools.product(
        OPERATIONS, (1, 3, 10), ASKED_SIZES, (None, "low", "high"), ("png", "jpeg", "webp")
    )
]
"""What may be asked, in every combination that matters to a plan."""
