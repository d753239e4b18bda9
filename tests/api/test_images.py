"""Generations as a client sees them: what it may send, and what it gets back."""

from __future__ import annotations

import re
import time

import httpx
import pytest

from tests.support.gateways import GENERATIONS, OFFICIAL, SMALLEST, TASKS, VARIANT, Gateway, Gateways, error_of, small
from tests.support.plain_pictures import decode, png


def test_json_generation_answers_like_openai(gateway: Gateway) -> None:
    """A generation has exactly OpenAI's fields, the real size, and a picture that decodes."""
    answer = gateway.generate(size="1024x768", quality="low")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"created", "background", "output_format", "quality", "size", "usage", "data"}
    assert abs(body["created"] - time.time()) < 60
    assert isinstance(body["created"], int)
    assert (body["size"], body["quality"], body["output_format"]) == ("1024x768", "low", "png")
    assert [set(item) for item in body["data"]] == [{"b64_json", "revised_prompt"}]
    image = decode(body["data"][0])
    assert (image.size, image.format) == ((1024, 768), "PNG")
    assert not gateway.leftovers()


def test_answer_headers_tell_what_happened(gateway: Gateway) -> None:
    """The task, the upstream, its calls and the sizes are in the answer's headers, and simulated is not claimed."""
    answer = gateway.generate()
    headers = answer.headers
    assert re.fullmatch(r"task_[0-9a-z]{26}", headers["x-gateway-task"])
    assert headers["x-gateway-upstream"] == "anyfast"
    assert headers["x-gateway-calls"] == "1"
    assert headers["x-gateway-size"] == f"{SMALLEST}->{SMALLEST}"
    assert headers["x-request-id"].startswith("req_")
    for absent in ("x-gateway-dropped-params", "x-gateway-simulated", "x-gateway-delivered", "server"):
        assert absent not in headers


def test_own_request_id_comes_back(gateway: Gateway) -> None:
    """A caller's request id is kept where it is a plain word, and replaced where it is not."""
    assert gateway.get("/v1/models", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for strange in ("a b", "x" * 101, "<script>"):
        answer = gateway.get("/v1/models", headers={"x-request-id": strange})
        assert answer.headers["x-request-id"].startswith("req_")


def test_usage_only_when_upstream_counts(gateway: Gateway) -> None:
    """Token counts are the upstream's own, and absent where it gave none."""
    counted = gateway.generate(n=2).json()["usage"]
    assert counted["total_tokens"] == counted["input_tokens"] + counted["output_tokens"] > 0
    assert set(counted["input_tokens_details"]) == {"text_tokens", "image_tokens"}
    gateway.simulator.fault("shape", shape="no_usage")
    assert "usage" not in gateway.generate().json()
    assert "usage" not in gateway.generate(model=TASKS, size="1024x1024").json()


@pytest.mark.parametrize("model", [OFFICIAL, VARIANT, TASKS])
@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_every_format_from_every_upstream(gateway: Gateway, model: str, output_format: str) -> None:
    """The format asked for is the format of the bytes, whatever the upstream can make itself."""
    body = gateway.generate(model=model, size="1024x1024", output_format=output_format).json()
    assert body["output_format"] == output_format
    image = decode(body["data"][0])
    assert (image.format, image.size) == (output_format.upper(), (1024, 1024))


@pytest.mark.parametrize("model", [OFFICIAL, VARIANT, TASKS])
def test_several_images_all_arrive(gateway: Gateway, model: str) -> None:
    """n images come from every upstream, by one call or by several."""
    answer = gateway.generate(model=model, size="1024x1024", n=3)
    data = answer.json()["data"]
    assert [decode(item).size for item in data] == [(1024, 1024)] * 3
    assert answer.headers["x-gateway-calls"] == ("3" if model == VARIANT else "1")
    assert sum(purchase["n"] for purchase in gateway.simulator.book()) == 3


def test_links_work_without_key(gateway: Gateway) -> None:
    """`response_format: url` gives links that anyone can open, from any upstream."""
    for model in (OFFICIAL, TASKS):
        item = gateway.generate(model=model, size="1024x1024", response_format="url").json()["data"][0]
        assert "b64_json" not in item
        assert item["url"].startswith(gateway.url + "/v1/artifacts/")
        picture = httpx.get(item["url"], trust_env=False, verify=False)
        assert picture.status_code == 200
        assert picture.headers["content-type"] == "image/png"
        assert picture.content.startswith(b"\x89PNG")


def test_links_begin_at_public_url(gateways: Gateways) -> None:
    """Behind a proxy, links carry the configured address and not the Host of the request."""
    gateway = gateways.open(settings={"public_url": "https://images.example.com/gw"})
    item = gateway.generate(response_format="url").json()["data"][0]
    assert item["url"].startswith("https://images.example.com/gw/v1/artifacts/")


def test_alias_brings_its_response_format(gateway: Gateway) -> None:
    """A name from older code keeps what that code expects, unless the request says otherwise."""
    old = small(model="dall-e-3", size="1024x1024", quality="hd")
    assert "url" in gateway.post(GENERATIONS, json=old).json()["data"][0]
    assert "b64_json" in gateway.post(GENERATIONS, json=old | {"response_format": "b64_json"}).json()["data"][0]


def test_model_may_be_absent(gateway: Gateway) -> None:
    """Without a model the default answers, by its cheapest upstream."""
    answer = gateway.post(GENERATIONS, json={"prompt": "a cat", "size": SMALLEST})
    assert answer.status_code == 200
    assert answer.headers["x-gateway-upstream"] == "anyfast-c"


def test_null_means_absent(gateway: Gateway) -> None:
    """Nulls, which the Python SDK sends for None, are as good as fields left out."""
    names = ["n", "quality", "size", "background", "output_format", "output_compression", "moderation"]
    names += ["response_format", "stream", "partial_images", "user", "style", "mask", "image", "whatever"]
    answer = gateway.generate(**(dict.fromkeys(names) | {"size": SMALLEST}))
    assert answer.status_code == 200
    assert "x-gateway-dropped-params" not in answer.headers


def test_dropped_parameters_are_named(gateway: Gateway) -> None:
    """What no upstream takes is left out and told, strange names included."""
    answer = gateway.generate(style="vivid", user="u1", wh_at=1, **{"naïve\r\nx: y": 2})
    assert answer.status_code == 200
    assert answer.headers["x-gateway-dropped-params"] == "user,style,wh_at,na?ve??x??y"
    edited = gateway.edit({"image": png()}, moderation="low", input_fidelity="high", quality="high")
    assert set(edited.headers["x-gateway-dropped-params"].split(",")) == {"input_fidelity", "moderation", "quality"}


def test_many_dropped_names_stay_readable(gateway: Gateway) -> None:
    """Thousands of unknown fields do not make an answer whose headers no client reads."""
    answer = gateway.generate(**{f"{'x' * 50}{number}": 1 for number in range(3000)})
    assert answer.status_code == 200
    assert len(answer.headers["x-gateway-dropped-params"]) < 4096


def test_strict_mode_refuses_unknown_fields(gateways: Gateways) -> None:
    """With `unknown_fields: refuse` a misspelt parameter is an error that names it."""
    gateway = gateways.open(unknown_fields="refuse")
    answer = gateway.generate(qualty="high")
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "unknown_parameter"
    assert error_of(answer)["param"] == "qualty"
    assert gateway.generate(user="u1").status_code == 200


def test_end_user_is_recorded(gateway: Gateway) -> None:
    """The caller's own end user is in the task's record: `safety_identifier` before `user`."""
    answer = gateway.generate(user="u1", safety_identifier="s1")
    assert gateway.read_task(answer.headers["x-gateway-task"])["end_user"] == "s1"


def test_nearest_size_is_told(gateways: Gateways) -> None:
    """Where the route allows it another size is made, and both are told."""
    gateway = gateways.open(models={TASKS: {"sizes": "nearest"}})
    answer = gateway.generate(model=TASKS, size="1280x720")
    assert answer.headers["x-gateway-size"] == "1280x720->1536x1024"
    assert answer.json()["size"] == "1536x1024"


def test_real_size_is_told(gateway: Gateway) -> None:
    """An upstream that makes another size than it was asked for is found out by the decoded picture."""
    gateway.simulator.fault("wrong_size", size="640x480")
    answer = gateway.generate()
    assert answer.json()["size"] == "640x480"
    assert answer.headers["x-gateway-size"] == f"{SMALLEST}->640x480"


def test_ratio_and_tier_make_size(gateway: Gateway) -> None:
    """`aspect_ratio` with `resolution`, or a ratio as `size`, make the same size everywhere."""
    for model in (OFFICIAL, TASKS):
        wide = gateway.post(
            GENERATIONS, json={"prompt": "x", "model": model, "aspect_ratio": "16:9", "resolution": "2K"}
        )
        assert wide.json()["size"] == "2048x1152"
    assert gateway.generate(size="1:1").json()["size"] == "1024x1024"


def test_every_call_is_recorded_first(gateway: Gateway) -> None:
    """The ledger knows each paid call of a task and what it cost; the task's record says whose it is."""
    answer = gateway.generate(model=VARIANT, n=2)
    record = gateway.read_task(answer.headers["x-gateway-task"])
    calls = gateway.calls(answer.headers["x-gateway-task"])
    assert [(call.state, call.usd, call.images) for call in calls] == [("posted", 30_000, 1)] * 2
    assert answer.headers["x-gateway-cost-usd"] == "0.060000"
    assert gateway.record is not None
    assert record["key"] == gateway.record.id
    assert "a cat" not in str(record)


def test_jpeg_compression_reaches_vendor(gateway: Gateway) -> None:
    """`output_compression` goes upstream with jpeg; with png, where it cannot work, the caller is told."""
    heavy = gateway.generate(output_format="jpeg", output_compression=5)
    assert gateway.simulator.paid()[0]["fields"]["output_compression"] == 5
    assert "x-gateway-dropped-params" not in heavy.headers
    answer = gateway.generate(output_compression=50)
    assert answer.headers["x-gateway-dropped-params"] == "output_compression"
    assert "x-gateway-dropped-params" not in gateway.generate(output_compression=100).headers
