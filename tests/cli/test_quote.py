"""`imagegate quote`: an operator reads what a request would cost now, by the catalogue and what the gateways know."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.catalogue.upstream import HealthRules
from gateway.health.condition import Caps
from gateway.health.health import CallReport, TargetStore
from gateway.store.client import CommandQueue
from tests.conftest import Valkey
from tests.support.plans import KEYS, SHIPPED, example_prices
from tests.support.shell import SECRET, Typed, Typist
from tests.support.terminal import show_on_terminal

Quote = Callable[..., Typed]


def store_of(valkey: Valkey) -> dict[str, str]:
    return {"GATEWAY_REDIS_URL": valkey.url, "GATEWAY_KEY_PEPPER": SECRET, "GATEWAY_SIGNING_KEY": SECRET}


@pytest.fixture
def quote(typist: Typist, tmp_path: Path) -> Quote:
    """Types the command over the shipped catalogue, with no key set but those that are given."""

    def type_command(*words: str, **env: str) -> Typed:
        return typist.type(
            ("quote", *words), {"GATEWAY_CONFIG": str(SHIPPED), "GATEWAY_DATA_DIR": str(tmp_path), **env}
        )

    return type_command


@pytest.fixture
def quoted(quote: Quote) -> Callable[..., dict[str, Any]]:
    """The same, as a program reads it."""

    def read(*words: str, **env: str) -> dict[str, Any]:
        found = quote(*words, "--json", **env)
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    return read


def config(folder: Path, **changes: Any) -> str:
    """The shipped catalogue with the example prices, and changes."""
    raw = yaml.safe_load(SHIPPED.read_text())
    for upstream in raw["upstreams"].values():
        upstream["prices"] = example_prices(upstream["kind"], upstream["model"])
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(raw | changes))
    return str(path)


def test_cheapest_stands_first(quote: Quote, tmp_path: Path) -> None:
    """The example of the handbook: who makes four large pictures for how much, one line each."""
    found = quote("--size", "2048x2048", "--quality", "high", "--n", "4", GATEWAY_CONFIG=config(tmp_path), **KEYS)
    assert found.exit_code == 0, found.output
    lines = [line.split("\t") for line in found.stdout.splitlines()]
    assert lines[0] == ["target", "price", "an image", "size made", "how", "why"]
    assert lines[1] == ["anyfast-c/main", "$0.120000", "$0.030000", "2048x2048", "4 calls", "cheapest"]
    assert [line[0] for line in lines[1:]] == ["anyfast-c/main", "apiany/main", "anyfast/main"]
    assert found.stderr.startswith("imagegate: the present state of the upstreams is not known: no gateway runs in ")
    assert not list(tmp_path.glob("*.json"))


async def teach(url: str, *labels: str, seconds: float = 0, refused: bool = False) -> None:
    """Have the store know how a call went at each of these."""
    command_queue = CommandQueue(url)
    store = TargetStore(command_queue)
    report = (
        CallReport("none", cool=300, why="credential")
        if refused
        else CallReport("good", kind="medium/1K", seconds=seconds)
    )
    for label in labels:
        assert await store.take(label, "permit_1", 15, Caps()) is None
        await store.finish(label, "permit_1", report, HealthRules())
    await command_queue.aclose()


def targets_of(found: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Who would be asked, and who would not and why."""
    rejected = {one["target"]: one["reason"] for one in found["rejections"]}
    return [one["target"] for one in found["choices"]], rejected


async def test_quote_knows_health(quoted: Callable[..., dict[str, Any]], valkey: Valkey, tmp_path: Path) -> None:
    """Who is left alone is not quoted as the first, and `latency` goes by what all gateways measured."""
    env = {"GATEWAY_CONFIG": config(tmp_path), **KEYS, **store_of(valkey)}
    assert targets_of(quoted(**env))[0][0] == "apiany/main"
    await teach(valkey.url, "anyfast-c/main", seconds=9)
    await teach(valkey.url, "apiany/main", seconds=30)
    await teach(valkey.url, "anyfast/main", seconds=4)
    found = quoted("--strategy", "latency", "--size", "1024x1024", "--quality", "medium", **env)
    assert targets_of(found)[0] == ["anyfast/main", "anyfast-c/main", "apiany/main"]
    assert found["note"] is None
    valkey.flush()
    await teach(valkey.url, "apiany/main", refused=True)
    choices, rejected = targets_of(quoted("--size", "1024x1024", **env))
    assert choices == ["anyfast-c/main", "anyfast/main"]
    assert rejected == {"apiany/main": "it rejected the gateway's credential"}


async def test_quote_tells_prices_all_the_same(quote: Quote, valkey: Valkey, tmp_path: Path) -> None:
    """Where nobody can be asked just now, or Redis is away, prices are shown and the reason stands beside them."""
    env = {"GATEWAY_CONFIG": config(tmp_path), **KEYS, **store_of(valkey)}
    await teach(valkey.url, "anyfast-c/main", "anyfast/main", "apiany/main", refused=True)
    found = quote(**env)
    assert len(found.stdout.splitlines()) == 4
    assert "No upstream can take this request now (it rejected the gateway's credential)" in found.stderr
    away = quote(**(env | {"GATEWAY_REDIS_URL": "redis://:hunter2@127.0.0.1:9"}))
    assert len(away.stdout.splitlines()) == 4
    assert "not known: Redis is unavailable" in away.stderr
    assert "hunter2" not in away.output


def test_terminal_has_a_headline(tmp_path: Path) -> None:
    """On a terminal the table says what was asked for, by which strategy, and whose prices they are."""
    env = {"GATEWAY_CONFIG": str(SHIPPED), "GATEWAY_DATA_DIR": str(tmp_path)}
    shown = re.sub(r"\s+", " ", show_on_terminal(env, "quote", "--demo", "--n", "2", "--size", "1920x1088"))
    assert "gpt-image-2: generation, n=2, 1920x1088, quality auto; strategy cost" in shown
    assert "│ anyfast-c/main │" in shown
    assert "│ $0.060000 │" in shown
    assert "not: it" in shown
    assert "and no vendor's" in shown


def test_json_is_a_dry_runs(quoted: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """What a program reads here is what the gateway answers to a dry run."""
    found = quoted(
        *("--operation", "edit", "--references", "2", "--mask", "--quality", "low", "--format", "webp"),
        GATEWAY_CONFIG=config(tmp_path),
        **KEYS,
    )
    assert (found["object"], found["operation"], found["references"], found["mask"]) == ("image.plan", "edit", 2, True)
    assert [one["target"] for one in found["choices"]] == ["anyfast-c/main", "anyfast/main"]
    assert found["choices"][0]["dropped"] == ["quality"]
    assert "one image, not 2" in found["rejections"][0]["reason"]


def test_quote_needs_a_key_or_demo(quote: Quote, quoted: Callable[..., dict[str, Any]]) -> None:
    """Without an upstream key the simulator's example prices are quoted where that was asked for, and are named so."""
    bare = quote()
    assert bare.exit_code == 1
    assert "APIANY_API_KEY" in bare.stderr
    assert "imagegate quote --demo" in bare.stderr
    demo = quote("--demo")
    assert demo.exit_code == 0
    assert "$0.015000" in demo.stdout
    assert "example prices" in demo.stderr
    assert "example prices" in quoted("--demo")["note"]


def test_unknown_prices_are_told(quote: Quote) -> None:
    """With real keys and no prices, the table says so and keeps to the catalogue's order."""
    found = quote(**KEYS)
    assert [line.split("\t")[:2] for line in found.stdout.splitlines()[1:]] == [
        ["anyfast-c/main", "unknown"],
        ["apiany/main", "unknown"],
        ["anyfast/main", "unknown"],
    ]
    assert "the catalogue's order decides" in found.stderr


def test_rules_and_choices_are_followed(quoted: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """A team's rule, a strategy, a model and an upstream that were typed are those of the Plan."""
    rules = [{"name": "film", "when": {"teams": ["film"]}, "upstreams": ["apiany"]}]
    env = {"GATEWAY_CONFIG": config(tmp_path, rules=rules), **KEYS}
    assert quoted("--team", "film", **env)["rule"] == "film"
    assert quoted("--team", "design", **env)["rule"] is None
    assert quoted("--strategy", "priority", **env)["strategy"] == "priority"
    assert [one["upstream"] for one in quoted("--upstream", "anyfast", **env)["choices"]] == ["anyfast"]
    assert [one["upstream"] for one in quoted("--model", "gpt-image-2-c", **env)["choices"]] == ["anyfast-c"]


def test_any_parameter_is_quoted(quoted: Callable[..., dict[str, Any]]) -> None:
    """A parameter without an option of its own counts like in a request: what it drops, and what it decides."""
    found = quoted("--demo", "--param", "moderation=low", "--param", "aspect_ratio=16:9", "--resolution", "2K")
    assert {one["target"]: one["dropped"] for one in found["choices"]} == {
        "anyfast-c/main": [],
        "apiany/main": ["moderation"],
        "anyfast/main": [],
    }
    assert {one["size"] for one in found["choices"]} == {"2048x1152"}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--size", "1000x1000"), 1, "nearest legal size is 992x992"),
        (("--quality", "best"), 1, "low, medium, high"),
        (("--n", "11"), 1, "from 1 to 10"),
        (("--model", "unheard-of"), 1, "does not exist. There are gpt-image-2,"),
        (("--model", "GPT-Image-3"), 1, "Did you mean `gpt-image-2`?"),
        (("--upstream", "nowhere"), 1, "use one of anyfast-c, apiany, anyfast"),
        (("--strategy", "cheapest"), 2, "cost, priority, weighted, latency"),
        (("--param", "moderation=off"), 1, "`moderation` must be one of auto, low"),
        (("--param", "moderaton=low"), 1, "Did you mean `moderation`?"),
        (("--param", "seed=7"), 1, "There is no parameter `seed`"),
        (("--param", "moderation"), 2, "right is moderation=low"),
        (("--param", "n=2"), 2, "`n` has an option of its own: --n"),
        (("--param", "image_url=https://a.example/a.png"), 2, "an option of its own: --references"),
        (("--operation", "variation"), 2, "generation or edit"),
        (("--references", "17"), 2, "less than or equal to 16"),
        (("--reference-size", "large"), 2, "1024x1024"),
    ],
    ids=str,
)
def test_mistyped_request_is_explained(quote: Quote, words: tuple[str, ...], code: int, told: str) -> None:
    """What cannot be asked for is refused as the gateway would, in a sentence."""
    found = quote("--demo", *words)
    assert found.exit_code == code
    assert told in re.sub(r"[│\s]+", " ", found.stderr)
