"""What is asked, planned, sent and made agree, over TCP: judged by the vendors' pages and the simulator's log."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.gateways import EDITS, ENV, GENERATIONS, Gateway, Gateways
from tests.support.ledgers import is_soak
from tests.support.pairs import pairwise
from tests.support.plain_pictures import data_url, mask, png
from tests.support.plans import OPENAI, UPSTREAMS
from tests.support.vendor_pages import SIZES, TARGETS, Sold, Wish, sold

QUICK = ("none", "square", "small", "3:2", "16:9")
"""Sizes that are quickly drawn."""

COLUMNS: dict[str, tuple[Any, ...]] = {
    "target": TARGETS,
    "size": QUICK,
    "quality": (None, "low", "high"),
    "n": (1, 2),
    "pictures": ((0, False), (1, False), (3, False), (1, True), (2, True)),
    "output_format": ("png", "jpeg", "webp"),
    "form": ("b64_json", "url", "stream"),
    "body": ("json", "multipart"),
}
BATCHES = 12
ROWS = pairwise(COLUMNS, 120, seed=2)


@pytest.fixture
def grid(gateways: Gateways) -> Gateway:
    """A gateway with a model for each of the five targets; sizes in pixels are exact, ratios may be the nearest."""
    simulator = gateways.open().simulator.url
    basic = {
        "kind": "anyfast",
        "base_url": f"{simulator}/anyfast",
        "model": "gpt-image-2",
        "credentials": [{"key": "env:BASIC_API_KEY"}],
        "prices": {"per_image": "0.05"},
    }
    openai = OPENAI | {"base_url": f"{simulator}/openai", "prices": {"per_image": "0.05"}}
    models = {name: {"upstreams": [upstream]} for name, upstream in UPSTREAMS.items()}
    env = ENV | {"BASIC_API_KEY": "sim-basic", "OPENAI_API_KEY": "sim-openai"}
    return gateways.open(env=env, upstreams={"anyfast-basic": basic, "openai": openai}, models=models)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_plan_call_and_picture_agree(grid: Gateway, batch: int) -> None:
    """120 requests with every pair of values: the dry run tells what is then sent, made, delivered and charged."""
    for row in ROWS[batch::BATCHES]:
        judge(grid, row)


@pytest.mark.soak
@pytest.mark.skipif(not is_soak(), reason="part of the soak profile")
@pytest.mark.parametrize("seed", range(20))
def test_many_more_agree(grid: Gateway, seed: int) -> None:
    """The same of 2,000 requests, large pictures among them."""
    for row in pairwise(COLUMNS | {"size": tuple(SIZES), "n": (1, 2, 5)}, 100, seed=100 + seed):
        judge(grid, row)


def test_most_of_the_grid_is_served() -> None:
    """Enough of the 120 are pictures, and enough are refusals, for the grid to prove both."""
    served = [row["target"] for row in ROWS if sold(row["target"], wish_of(row))]
    assert 90 <= len(served) <= 110
    assert {target for target in TARGETS if served.count(target) >= 10} == set(TARGETS)


def wish_of(row: dict[str, Any]) -> Wish:
    references, is_masked = row["pictures"]
    return Wish(SIZES[row["size"]], row["quality"], row["n"], references, is_masked, row["output_format"])


def judge(gateway: Gateway, row: dict[str, Any]) -> None:
    wish = wish_of(row)
    page = sold(row["target"], wish)
    gateway.simulator.reset()
    dry = send(gateway, row, wish, {"X-Gateway-Dry-Run": "1"})
    assert not gateway.simulator.log(), row
    real = send(gateway, row, wish, {})
    if page is None:
        assert (dry.status_code, real.status_code) == (400, 400), row
        assert dry.json() == real.json()
        assert not gateway.simulator.log()
        return
    assert real.status_code == 200, (row, real.text)
    check_plan(dry.json(), row, page)
    check_calls(gateway, row, page)
    check_answer(gateway, row, dry.json(), real)


def send(gateway: Gateway, row: dict[str, Any], wish: Wish, headers: dict[str, str]) -> httpx.Response:
    """The wish in the form of the row; a generation is always JSON."""
    fields = {"model": row["target"], "prompt": "a fox", **wish.fields()}
    fields |= {"stream": True} if row["form"] == "stream" else {"response_format": row["form"]}
    if not wish.references:
        return gateway.post(GENERATIONS, headers=headers, json=fields)
    if row["body"] == "json":
        links: dict[str, Any] = {"images": [{"image_url": data_url(png())}] * wish.references}
        links |= {"mask": {"image_url": data_url(mask())}} if wish.masked else {}
        return gateway.post(EDITS, headers=headers, json=fields | links)
    files = [("image[]", ("a.png", png(), "image/png"))] * wish.references
    files += [("mask", ("m.png", mask(), "image/png"))] if wish.masked else []
    texts = {name: json.dumps(value) if value is True else str(value) for name, value in fields.items()}
    return gateway.post(EDITS, headers=headers, data=texts, files=files)


def check_plan(plan: dict[str, Any], row: dict[str, Any], page: Sold) -> None:
    (choice,) = plan["choices"]
    assert choice["upstream"] == UPSTREAMS[row["target"]], row
    assert (choice["size"], choice["calls"]) == (page.made, len(page.calls)), row
    assert choice["quality"] == page.sent["quality"], row
    assert ("quality" in choice["dropped"]) == ("quality" in page.breaks), row


def check_calls(gateway: Gateway, row: dict[str, Any], page: Sold) -> None:
    """The paid calls are as many as planned, and each has the fields of the pages and no other."""
    paid = gateway.simulator.paid()
    assert sorted(int(one["fields"].get("n", 1)) for one in paid) == sorted(page.calls), row
    references, is_masked = row["pictures"]
    for one in paid:
        assert not one["undocumented"] + one["refused"], row
        told = {name: one["fields"].get(name) for name in page.sent}
        # Where the upstream chooses, `auto` is its own default.
        assert {**told, "size": told["size"] or "auto"} == page.sent, row
        sent = len(one["fields"].get("input_images") or [file for file in one["files"] if file["field"] != "mask"])
        assert sent == references, row
        assert any(file["field"] == "mask" for file in one["files"]) == is_masked, row


def check_answer(gateway: Gateway, row: dict[str, Any], plan: dict[str, Any], answer: httpx.Response) -> None:
    """As many pictures as were asked for, of the size that was planned and in the format that was asked for."""
    pictures = list(pictures_of(gateway, row, answer))
    assert len(pictures) == row["n"], row
    planned = plan["choices"][0]["size"]
    for picture in pictures:
        assert picture.format == row["output_format"].upper(), row
        assert planned in (None, f"{picture.width}x{picture.height}"), row
    if row["form"] != "stream":
        assert int(answer.headers["x-gateway-calls"]) == plan["choices"][0]["calls"], row
        assert answer.headers["x-gateway-upstream"] == plan["choices"][0]["upstream"], row
    if row["target"] in ("variant", "tasks"):
        # The official price is by tokens, of which the answer brings its own count.
        assert gateway.booked() == round(float(plan["choices"][0]["price_usd"]) * 1_000_000), row


def pictures_of(gateway: Gateway, row: dict[str, Any], answer: httpx.Response) -> Iterator[Image.Image]:
    if row["form"] == "stream":
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
        data = [json.loads(line) for line in lines]
    else:
        data = answer.json()["data"]
    for one in data:
        bytes_ = gateway.client.get(one["url"]).content if "url" in one else base64.b64decode(one["b64_json"])
        yield Image.open(io.BytesIO(bytes_))
