"""A vendor is one file and one row: its facts in `catalogue/vendors.py`, its dialect in `upstreams/KIND.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.catalogue import vendors
from gateway.catalogue.vendors import VENDORS, find_offer
from gateway.cli.probe.questions import QUESTIONS
from gateway.upstreams import ADAPTERS
from gateway.upstreams.base import Adapter

GATEWAY = Path(vendors.__file__).parent.parent
OWN = ("catalogue/vendors.py", "simulator/", *(f"upstreams/{kind}.py" for kind in VENDORS))

# OpenAI's name is also that of the protocol, so only its use as a kind counts.
NAMES = re.compile(r"(?i:anyfast|apiany)|[\"']openai[\"']|upstreams(\.| import )openai")


def test_vendors_are_named_at_home() -> None:
    """No branch, list or text outside a vendor's own modules names it."""
    paths = (path.relative_to(GATEWAY) for path in (*GATEWAY.rglob("*.py"), *GATEWAY.rglob("*.lua")))
    others = [path for path in paths if not path.as_posix().startswith(OWN)]
    assert [path for path in others if NAMES.search((GATEWAY / path).read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("kind", VENDORS)
def test_every_row_has_its_dialect(kind: str) -> None:
    """Each kind has an adapter of its own, with every method of the interface."""
    assert (GATEWAY / "upstreams" / f"{kind}.py").is_file()
    methods = [name for name in vars(Adapter) if not name.startswith("_")]
    assert sorted(methods) == ["check", "poll", "prepare", "read_ticket", "submit"]
    assert all(callable(getattr(ADAPTERS[kind], name)) for name in methods)


@pytest.mark.parametrize("kind", VENDORS)
@pytest.mark.parametrize("model", ["gpt-image-2", "gpt-image-2-c", "org/gpt-image-2", "flux", ""])
@pytest.mark.parametrize("group", ["direct", "default", "anything"])
def test_every_credential_has_an_offer(kind: str, model: str, group: str) -> None:
    """Whatever model and group an operator writes, the vendor's row has facts for it, and questions that exist."""
    offer = find_offer(kind, model, group)
    assert VENDORS[kind].kind == kind
    assert [name for name in offer.questions if name not in QUESTIONS] == []
    assert not VENDORS[kind].tells_balance or "balance" in offer.questions


@pytest.mark.parametrize(
    ("credential", "key"),
    [
        (("anyfast", "gpt-image-2", "direct"), "sim-direct"),
        (("anyfast", "gpt-image-2", "default"), "sim-basic"),
        (("anyfast", "gpt-image-2-c", "direct"), "sim-c"),
        (("anyfast", "gpt-image-2-c", "default"), "sim-basic"),
        (("apiany", "gpt-image-2", "direct"), "sim-apiany"),
        (("openai", "gpt-image-2", "default"), "sim-openai"),
        (("openai", "gpt-image-1", "default"), "sim-openai"),
        (("openai", "org/gpt-image-2", "default"), "sim-compatible"),
        (("openai", "flux", "default"), "sim-compatible"),
    ],
)
def test_offer_is_by_model_and_group(credential: tuple[str, str, str], key: str) -> None:
    """The first offer that fits a credential holds."""
    assert find_offer(*credential).simulator_key == key
