"""Links and the money behind them end when they should."""

import io

import httpx
import pytest
from PIL import Image

from gateway.simulator.config import SimulatorConfig
from gateway.simulator.server import background

KEY = {"authorization": "Bearer sim-apiany"}


def _upload(client):
    out = io.BytesIO()
    Image.new("RGB", (300, 300)).save(out, "PNG")
    files = {"file": ("x", out.getvalue())}
    return client.post("/apiany/v1/images/upload", headers=KEY, files=files).json()["url"]


def test_expired_links_are_gone():
    """A link that has expired answers 410, and an expired upload cannot be referred to."""
    with (
        background(SimulatorConfig(link_lifetime=0)) as url,
        httpx.Client(base_url=url, verify=False) as client,
    ):
        link = _upload(client)
        assert client.get(link).status_code == 410
        body = {"model": "gpt-image-2", "prompt": "x", "input_images": [link]}
        assert client.post("/apiany/v1/images/generations", headers=KEY, json=body).status_code == 400


def test_oldest_uploads_make_room():
    """Uploads beyond the space that was given push the oldest out."""
    with (
        background(SimulatorConfig(upload_space=2_000)) as url,
        httpx.Client(base_url=url, verify=False) as client,
    ):
        links = [_upload(client) for _ in range(6)]
        statuses = [client.get(link).status_code for link in links]
    assert statuses[0] == 404
    assert statuses[-1] == 200


def test_link_of_other_vendor_not_found(hand):
    """A link lives below its own vendor's path only."""
    link = hand.finish(hand.submit())["result"]["data"][0]["url"]
    assert hand.client.get(link.replace("/apiany/", "/anyfast/")).status_code == 404


@pytest.mark.parametrize("credits_left", [0, 14])
def test_empty_balance_refuses(credits_left):
    """A submission beyond the balance is refused with 402 and not booked."""
    with (
        background(SimulatorConfig(credits=credits_left)) as url,
        httpx.Client(base_url=url, verify=False) as client,
    ):
        body = {"model": "gpt-image-2", "prompt": "x"}
        answer = client.post("/apiany/v1/images/generations", headers=KEY, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (402, "insufficient_credits")
        assert client.get("/_book").json() == []
