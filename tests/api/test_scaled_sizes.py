"""Sizes that an alias serves by scaling: DALL-E's old ones, made at the nearest size of that shape."""

from __future__ import annotations

import pytest

from gateway.jobs.job import Size, snap_shape
from tests.support.gateways import OFFICIAL, TASKS, Gateway, Gateways, assert_refused
from tests.support.plain_pictures import decode, png

OLD = ["256x256", "512x512", "1024x1024", "1024x1792", "1792x1024"]


@pytest.fixture
def gateway(gateways: Gateways) -> Gateway:
    """A gateway with an alias of each kind of upstream: any size, seven sizes."""
    return gateways.open(
        aliases={
            "dall-e-2": {"model": OFFICIAL, "scaled_sizes": OLD},
            "dall-e-3": {"model": TASKS, "scaled_sizes": OLD, "response_format": "url"},
        }
    )


MADE = {
    ("dall-e-2", "256x256"): "256x256->816x816->256x256",
    ("dall-e-2", "512x512"): "512x512->816x816->512x512",
    ("dall-e-2", "1024x1024"): "1024x1024->1024x1024",
    ("dall-e-2", "1792x1024"): "1792x1024->1792x1024",
    ("dall-e-3", "512x512"): "512x512->1024x1024->512x512",
    ("dall-e-3", "1024x1024"): "1024x1024->1024x1024",
    ("dall-e-3", "1792x1024"): "1792x1024->2048x1152->1792x1024",
    ("dall-e-3", "1024x1792"): "1024x1792->2160x3840->1024x1792",
}


@pytest.mark.parametrize(("model", "size"), MADE)
def test_old_size_is_served(gateway: Gateway, model: str, size: str) -> None:
    """The picture has the requested size, and the header says what was asked, made and delivered."""
    answer = gateway.generate(model=model, size=size, response_format="b64_json", quality="low")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gateway-size"] == MADE[model, size]
    assert answer.json()["size"] == size
    assert "{}x{}".format(*decode(answer.json()["data"][0]).size) == size
    assert gateway.spent().usd_posted == gateway.booked()


def test_old_size_of_edit_is_served(gateway: Gateway) -> None:
    """Edits have the old sizes too, and so has a retry by another form."""
    answer = gateway.edit({"image": png()}, model="dall-e-2", size="256x256")
    assert answer.headers["x-gateway-size"] == "256x256->816x816->256x256"
    assert decode(answer.json()["data"][0]).size == (256, 256)


def test_other_models_keep_their_sizes(gateway: Gateway) -> None:
    """The old sizes belong to the alias: under the model's own name, and for other sizes, the rules stay."""
    assert_refused(gateway, gateway.generate(size="512x512"), 400, "size")
    assert_refused(gateway, gateway.generate(model="dall-e-2", size="500x500"), 400, "size")


def test_dry_run_shows_scaling(gateway: Gateway) -> None:
    """A dry run says at which size the picture would be made, and that it would be scaled."""
    plan = gateway.generate(model="dall-e-2", size="512x512", headers={"x-gateway-dry-run": "1"}).json()
    assert (plan["size"], plan["choices"][0]["size"]) == ("512x512", "816x816")
    assert "scaled to 512x512 here" in plan["choices"][0]["compensation"]


def test_shape_counts_before_size() -> None:
    """Of the sizes that an upstream makes the nearest in shape is scaled, of equal shapes the nearest in area."""
    seven = [Size(1024, 1024), Size(1536, 1024), Size(1024, 1536), Size(2048, 2048), Size(2048, 1152), Size(2160, 3840)]
    assert snap_shape(Size(816, 816), seven) == Size(1024, 1024)
    assert snap_shape(Size(1792, 1024), seven) == Size(2048, 1152)
    assert snap_shape(Size(1200, 800), seven) == Size(1536, 1024)
