"""The book and the log say what was seen."""

import hashlib

import httpx

from gateway.simulator.config import SimulatorConfig
from gateway.simulator.server import background


def test_log_describes_files(hand):
    """A file is logged by name, length, hash, format and dimensions, never by its bytes."""
    data = hand.draw("PNG", (80, 40), "RGBA")
    hand.edit(("image", data))
    (file,) = hand.log()[0]["files"]
    assert file == {
        "field": "image",
        "filename": "upload",
        "content_type": "application/octet-stream",
        "bytes": len(data),
        "format": "png",
        "size": "80x40",
        "has_alpha": True,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def test_log_describes_requests(hand):
    """A request is logged with its scalars, its headers of interest and what came of it."""
    headers = {**hand.headers("anyfast"), "idempotency-key": "abc", "x-odd": "1"}
    body = {"model": "gpt-image-2", "prompt": "p" * 5_000, "n": 2}
    hand.client.post("/anyfast/v1/images/generations", headers=headers, json=body)
    (seen,) = hand.log()
    assert seen["fields"] == {"model": "gpt-image-2", "prompt": "p" * 4_000 + "…", "n": 2}
    assert seen["headers"]["idempotency-key"] == "abc"
    assert seen["headers"]["authorization"] is True
    assert "x-odd" in seen["headers"]["names"]
    assert (seen["status"], seen["ending"], seen["purchase"]) == (200, "answered", hand.book()[0]["id"])


def test_key_sent_to_link_is_noted(hand):
    """A link needs no key, and one that is sent along is noted in the log."""
    link = hand.generate("gpt-image-2-c").json()["data"][0]["url"]
    hand.client.get(link)
    hand.client.get(link, headers=hand.headers("anyfast"))
    plain, keyed = hand.log()[1:]
    assert (plain["headers"]["authorization"], plain["endpoint"]) == (False, "files")
    assert (keyed["headers"]["authorization"], keyed["headers"]["key"]) == (True, "direct")


def test_book_names_what_was_bought(hand):
    """A purchase is booked with all that a bill would show."""
    image = ("image", hand.draw())
    hand.edit(image, ("mask", hand.draw(mode="RGBA")), n="2", size="1536x1024")
    (purchase,) = hand.book()
    del purchase["time"], purchase["id"]
    assert purchase == {
        "upstream": "anyfast",
        "model": "gpt-image-2",
        "operation": "edits",
        "n": 2,
        "prompt": "a lighthouse",
        "size_asked": "1536x1024",
        "size_made": "1536x1024",
        "quality": "medium",
        "price_usd": "0.088479",
        "key": "direct",
        "references": 1,
        "mask": True,
        "images_delivered": 2,
        "refunded": False,
        "task_id": None,
    }


def test_reset_forgets(hand):
    """A reset forgets rules, book, log, tasks, files and spending."""
    hand.fault("hang", skip=9)
    link = hand.generate("gpt-image-2-c").json()["data"][0]["url"]
    task_id = hand.submit().json()["task_id"]
    assert hand.client.post("/_reset").status_code == 204
    assert (hand.book(), hand.log(), hand.client.get("/_faults").json()) == ([], [], [])
    assert hand.client.get(link).status_code == 404
    assert hand.read(f"/v1/tasks/{task_id}").status_code == 404
    assert hand.read("/v1/credits/balance").json()["credits"] == 10_000_000


def test_log_is_bounded():
    """The log keeps the last requests and forgets older ones."""
    with (
        background(SimulatorConfig(log_entries=3)) as url,
        httpx.Client(base_url=url, verify=False) as client,
    ):
        for _ in range(5):
            client.get("/anyfast/v1/models")
        assert [seen["id"] for seen in client.get("/_log").json()] == [3, 4, 5]
