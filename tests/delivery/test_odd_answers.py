"""Answers that no page describes: odd links, too many pictures, bytes that are no answer, failed tasks with a bill."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import httpx
import pytest

from tests.support.gateways import OFFICIAL, TASKS, Gateways, error_of
from tests.support.plain_pictures import png
from tests.support.vendor import Raw, Sent, vendor

PICTURE = png(1024, 640)
GOOD = {"b64_json": base64.b64encode(PICTURE).decode()}
QUICK = {"timeouts": {"collect": 0.2}}


def answer_with(gateways: Gateways, items: list[Any], **fields: Any) -> tuple[httpx.Response, list[Sent], str]:
    """The caller's answer, and the downloads, of a vendor whose answer holds these items; `LINK` leads to a picture."""

    def answer(method: str, path: str) -> Any:
        if method == "POST":
            links = {f"LINK{number}": f"{home[0]}/files/{number}" for number in range(len(items))}
            return {"data": [links.get(one, one) if isinstance(one, str) else one for one in items]}
        return Raw(PICTURE, headers=(("Content-Type", "image/png"),))

    home: list[str] = []
    with vendor(answer) as (url, seen):
        home.append(url)
        gateway = gateways.open(upstreams={"anyfast": {"base_url": url, **QUICK}})
        made = gateway.generate(model=OFFICIAL, **fields)
        gateway.settle()
        return made, [one for one in seen if one.method == "GET"], made.headers.get("x-gateway-cost-usd", "")


ODD = ["http://[bad", "http://x:99999999/1.png", "https://" + "a" * 70_000, "/\x00\n", "https://host.invalid/1.png"]


@pytest.mark.parametrize("link", ODD, ids=["no host", "no port", "long", "control", "unknown"])
def test_bad_link_beside_a_picture(gateways: Gateways, link: str) -> None:
    """The good picture is delivered; only the slot of the bad link stays empty."""
    answer, _, _ = answer_with(gateways, [{"url": link}, GOOD], n=2)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"]) == 1


@pytest.mark.parametrize("link", ODD[:4], ids=["no host", "no port", "long", "control"])
def test_readable_pictures_come_first(gateways: Gateways, link: str) -> None:
    """Where an answer has more items than pictures were asked for, what cannot be read is left out."""
    answer, _, _ = answer_with(gateways, [{"url": link}, {"url": link}, "LINK2", GOOD])
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("count", [1, 3])
def test_no_more_downloads_than_asked_for(gateways: Gateways, count: int) -> None:
    """Of 3,000 links as many are opened as pictures were asked for."""
    answer, downloads, _ = answer_with(gateways, [f"LINK{number}" for number in range(3000)], n=count)
    assert len(answer.json()["data"]) == len(downloads) == count


def test_pictures_beyond_n_are_left(gateways: Gateways) -> None:
    """60 pictures for a request for one: one is delivered, and charged."""
    answer, _, cost = answer_with(gateways, [GOOD] * 60)
    assert len(answer.json()["data"]) == 1
    assert cost == answer_with(gateways, [GOOD])[2]


def test_compressed_link_is_read(gateways: Gateways) -> None:
    """A host that compresses a picture, though it was asked not to, delivers it all the same."""

    def answer(method: str, path: str) -> Any:
        if method == "POST":
            return {"data": [{"url": "/files/1.png"}]}
        return Raw(gzip.compress(PICTURE), headers=(("Content-Encoding", "gzip"),))

    with vendor(answer) as (url, _):
        made = gateways.open(upstreams={"anyfast": {"base_url": url, **QUICK}}).generate(model=OFFICIAL)
        assert made.status_code == 200, made.text


def test_unreadable_answer_is_kept_for_the_operator(gateways: Gateways) -> None:
    """Its start is a file of the data folder that only its user may read, without secrets and inner addresses."""
    with vendor(lambda *_: Raw(b"<html><title>Oops</title>secret sim-direct at 10.0.0.1" + b"x" * 50_000)) as (url, _):
        gateway = gateways.open(upstreams={"anyfast": {"base_url": url}})
        answer = gateway.generate(model=OFFICIAL)
        assert (answer.status_code, error_of(answer)["code"]) == (424, "upstream_bad_response")
        assert "Oops" in error_of(answer)["message"]
        gateway.settle()
        (kept,) = (gateway.settings.data_dir / "unread_answers").iterdir()
        text = kept.read_text()
        assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert "<title>Oops" in text
        assert "sim-direct" not in text
        assert "10.0.0.1" not in text
        assert len(text) < 20_000


@pytest.mark.parametrize(
    ("refunded", "is_unbilled", "upstreams"),
    [(True, False, ["apiany", "anyfast"]), (False, True, ["apiany"])],
    ids=["refunded", "billed"],
)
def test_failed_task_is_billed_as_it_says(
    gateways: Gateways, refunded: bool, is_unbilled: bool, upstreams: list[str]
) -> None:
    """A failed task whose answer reports charged credits is charged and bought nowhere else; a refunded one is not."""
    gateway = gateways.open(
        upstreams={"apiany": {"failed_task_is_unbilled": is_unbilled}},
        models={"both": {"upstreams": ["apiany", "anyfast"]}},
    )
    gateway.simulator.fault("task_failed", refunded=refunded)
    answer = gateway.generate(model="both", size="1024x1024")
    gateway.settle()
    assert [one["upstream"] for one in gateway.simulator.paid()] == upstreams
    assert (answer.status_code == 200) == refunded
    spent = gateway.spent()
    assert spent.usd_posted + spent.usd_presumed == gateway.booked() > 0


@pytest.mark.parametrize("is_unbilled", [True, False])
def test_failed_task_is_billed_as_the_catalogue_says(gateways: Gateways, is_unbilled: bool) -> None:
    """A failed task that says nothing of its bill is charged where the catalogue says that failures are billed."""

    def answer(method: str, path: str) -> Any:
        return {"task_id": "t1", "status": "pending" if method == "POST" else "failed"}

    with vendor(answer) as (url, _):
        gateway = gateways.open(upstreams={"apiany": {"base_url": url, "failed_task_is_unbilled": is_unbilled}})
        made = gateway.generate(model=TASKS, size="1024x1024")
        assert (made.status_code, error_of(made)["code"]) == (424, "upstream_failed")
        gateway.settle()
        assert (gateway.spent().usd_presumed > 0) is not is_unbilled


@pytest.mark.parametrize("number", [301, 302, 307, 308, 411, 414, 421, 426, 431, 451, 501, 505])
def test_next_upstream_serves_what_was_not_taken(gateways: Gateways, number: int) -> None:
    """Nothing was made, so nothing is charged there, and the next target serves the request."""
    gateway = gateways.open(models={"both": {"upstreams": ["anyfast", "apiany"]}})
    gateway.services.health.forget()
    gateway.simulator.fault("status", status=number, upstream="anyfast")
    answer = gateway.generate(model="both", size="1024x1024")
    assert (answer.status_code, answer.headers["x-gateway-upstream"]) == (200, "apiany"), answer.text
    gateway.settle()
    assert gateway.spent().usd_presumed == 0
