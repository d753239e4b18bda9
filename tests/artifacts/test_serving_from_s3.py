"""The whole gateway with its pictures in object storage: what a caller gets is what a folder would give."""

import uuid

import pytest

from tests.support.gateways import Gateways
from tests.support.plain_pictures import decode

pytestmark = pytest.mark.slow


def storage(endpoint: str, secret: str = "testsecret") -> dict[str, str]:
    options = f"endpoint={endpoint}&region=us-east-1&access_key_id=testkey&secret_access_key={secret}"
    return {"storage_url": f"s3://pictures/{uuid.uuid4().hex}?{options}"}


@pytest.mark.parametrize("form", ["b64_json", "url"])
@pytest.mark.parametrize("stream", [False, True])
def test_pictures_come_from_storage(gateways: Gateways, s3_server: str, form: str, stream: bool) -> None:
    """Both forms, at once or as events, work with pictures in object storage, and nothing is kept in the folder."""
    gateway = gateways.open(settings=storage(s3_server))
    answer = gateway.generate(response_format=form, stream=stream, n=2, size="1024x640")
    assert answer.status_code == 200, answer.text
    if stream:
        assert answer.text.count("event: image_generation.completed") == 2
    elif form == "b64_json":
        assert {decode(item).size for item in answer.json()["data"]} == {(1024, 640)}
    else:
        links = [item["url"] for item in answer.json()["data"]]
        found = [gateway.client.get(link) for link in links]
        assert {one.headers["content-type"] for one in found} == {"image/png"}
        assert all(one.content.startswith(b"\x89PNG") for one in found)
    assert gateway.pictures() == []


def test_refusing_storage_says_so(gateways: Gateways, s3_server: str) -> None:
    """A paid picture that the storage does not take is told as such, never as something to buy again."""
    gateway = gateways.open(settings=storage(s3_server, "wrong-secret"))
    answer = gateway.generate()
    assert answer.status_code == 424
    assert answer.json()["error"]["code"] == "upstream_failed"
    assert answer.headers["x-should-retry"] == "false"
    assert len(gateway.simulator.paid()) == 1
    assert gateway.get("/readyz").status_code == 503
