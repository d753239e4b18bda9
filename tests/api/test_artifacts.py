"""Pictures by their signed links: who may open one, what comes with it, and that nothing else opens it."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from gateway.artifacts.links import link
from tests.support.gateways import SECRETS, Gateway, error_of


@pytest.fixture
def made(gateway: Gateway) -> httpx.URL:
    """The link of a picture that was just made."""
    return httpx.URL(gateway.generate(response_format="url").json()["data"][0]["url"])


def test_link_opens_picture(gateway: Gateway, made: httpx.URL) -> None:
    """A link opens without a key, again and again, with headers under which a browser runs nothing."""
    for _ in range(2):
        answer = gateway.client.get(made)
        assert answer.status_code == 200
        assert answer.content.startswith(b"\x89PNG")
    headers = answer.headers
    assert headers["content-type"] == "image/png"
    assert int(headers["content-length"]) == len(answer.content)
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert headers["content-disposition"].startswith("inline; filename=")
    assert "private" in headers["cache-control"]
    assert headers["x-request-id"]


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_media_type_is_the_picture(gateway: Gateway, form: str) -> None:
    """The type that is told is the format of the bytes."""
    url = gateway.generate(response_format="url", output_format=form).json()["data"][0]["url"]
    assert gateway.client.get(url).headers["content-type"] == f"image/{form}"


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.copy_remove_param("sig"),
        lambda url: url.copy_remove_param("exp"),
        lambda url: url.copy_set_param("sig", "0" * len(url.params["sig"])),
        lambda url: url.copy_set_param("sig", ""),
        lambda url: url.copy_set_param("sig", "é"),
        lambda url: url.copy_set_param("exp", str(int(url.params["exp"]) + 1)),
        lambda url: url.copy_set_param("exp", "never"),
        lambda url: url.copy_set_param("exp", "9" * 5000),
        lambda url: url.copy_add_param("exp", "99999999999"),
        lambda url: url.copy_with(query=b""),
        lambda url: url.copy_with(query=b"%ff=%00&&&"),
        lambda url: url.copy_with(path=url.path.replace(".png", ".webp")),
        lambda url: url.copy_with(path="/v1/artifacts/img_00000000000000000000000000.png"),
        lambda url: url.copy_with(path="/v1/artifacts/x"),
        lambda url: url.copy_with(raw_path=b"/v1/artifacts/..%2f..%2fsecrets.json?" + url.query),
    ],
)
def test_altered_link_opens_nothing(gateway: Gateway, made: httpx.URL, change: Any) -> None:
    """Whatever of a link is changed, the answer is the same 404."""
    answer = gateway.client.get(change(made))
    assert answer.status_code == 404
    # An escaped slash makes another path, which no route serves.
    assert error_of(answer)["code"] in ("artifact_not_found", "unknown_url")


def test_expired_link_opens_nothing(gateway: Gateway, made: httpx.URL) -> None:
    """A link ends at its time, though it was rightly signed and the picture is still there."""
    name = made.path.rpartition("/")[2]
    now = int(time.time())
    assert gateway.client.get(link(name, now + 60, SECRETS.signing_key)).status_code == 200
    answer = gateway.client.get(link(name, now - 1, SECRETS.signing_key))
    assert (answer.status_code, error_of(answer)["code"]) == (404, "artifact_not_found")


def test_link_of_another_gateway_opens_nothing(gateway: Gateway, made: httpx.URL) -> None:
    """A link signed with another key is no link."""
    name = made.path.rpartition("/")[2]
    answer = gateway.client.get(link(name, int(time.time()) + 60, b"x" * 32))
    assert (answer.status_code, error_of(answer)["code"]) == (404, "artifact_not_found")
