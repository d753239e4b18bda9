"""The image routes as a client sees them: what it may send, in every dialect, and what it gets back."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.conftest import Valkey
from tests.served import (
    EDITS,
    GENERATIONS,
    OFFICIAL,
    SMALLEST,
    TASKS,
    VARIANT,
    Gateway,
    Gateways,
    data_url,
    decode,
    encode,
    error_of,
    mask,
    png,
    small,
    wait_until,
)


@contextlib.contextmanager
def file_server(files: dict[str, bytes]) -> Iterator[str]:
    """An origin that serves these files; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files.get(self.path)
            self.send_response(200 if data is not None else 404)
            self.send_header("content-length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name the base class gave it)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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
        picture = httpx.get(item["url"], trust_env=False)
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
    assert answer.headers["x-gateway-dropped-params"] == "style,user,wh_at,na?ve??x??y"
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


@pytest.mark.parametrize("name", ["image", "image[]", "image[0]"])
def test_edits_take_every_spelling(gateway: Gateway, name: str) -> None:
    """One image works by each field name that clients use."""
    answer = gateway.edit([(name, ("blob", png(), "application/octet-stream"))])
    assert answer.status_code == 200, answer.text
    assert gateway.simulator.book()[0]["references"] == 1
    assert not gateway.leftovers()


def test_numbered_images_keep_their_order(gateway: Gateway) -> None:
    """Several images arrive at the vendor in the order in which they were sent."""
    pictures = [png(64 + index, 64) for index in range(4)]
    answer = gateway.edit([(f"image[{index}]", ("x", data)) for index, data in enumerate(pictures)])
    assert answer.status_code == 200
    seen = gateway.simulator.log("edits")[0]["files"]
    assert [file["size"] for file in seen] == [f"{64 + index}x64" for index in range(4)]
    assert {file["field"] for file in seen} == {"image[]"}


def test_scalars_may_follow_files(gateway: Gateway) -> None:
    """A multipart body may name its prompt after its pictures, as some SDKs do."""
    parts = [("image", ("upload", png())), ("prompt", (None, "a dog")), ("model", (None, OFFICIAL)), ("n", (None, "2"))]
    answer = gateway.post(EDITS, files=parts)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"]) == 2
    assert gateway.simulator.book()[0]["prompt"] == "a dog"


def test_empty_scalars_mean_absent(gateway: Gateway) -> None:
    """An empty text field is no value, and so no mistake."""
    answer = gateway.edit({"image": png()}, n="", size="", quality="", user="", stream="")
    assert answer.status_code == 200, answer.text
    assert "x-gateway-dropped-params" not in answer.headers


def test_chunked_upload_needs_no_length(gateway: Gateway) -> None:
    """A body without Content-Length, as JavaScript streams it, is read to its end."""
    request = gateway.client.build_request(
        "POST", EDITS, data={"prompt": "a cat", "model": OFFICIAL}, files={"image": png()}, headers=gateway.auth
    )
    body = request.read()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 97):
            yield body[start : start + 97]

    headers = gateway.auth | {"content-type": request.headers["content-type"]}
    answer = gateway.client.post(EDITS, content=pieces(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.request.headers["transfer-encoding"] == "chunked"


def test_multipart_text_may_be_data_url(gateway: Gateway) -> None:
    """A picture may come as a data URL in a text part, a mask too."""
    parts = {"image": (None, data_url(png())), "mask": (None, data_url(mask()))}
    answer = gateway.edit(parts)
    assert answer.status_code == 200, answer.text
    assert gateway.simulator.book()[0]["mask"] is True


def test_multipart_generation_is_read(gateway: Gateway) -> None:
    """A generation sent as a form is a generation all the same."""
    parts = {name: (None, value) for name, value in small(n="2").items()}
    assert len(gateway.post(GENERATIONS, files=parts).json()["data"]) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"images": [{"image_url": data_url(png())}], "mask": {"image_url": data_url(mask())}},
        {"image": data_url(png()), "mask": data_url(mask())},
        {"image": [data_url(png())], "mask": data_url(mask())},
    ],
)
def test_json_edits_take_data_urls(gateway: Gateway, body: dict[str, Any]) -> None:
    """JSON edits work in OpenAI's form and in the shorter ones, with a mask."""
    answer = gateway.post(EDITS, json={"prompt": "a cat", "model": OFFICIAL} | body)
    assert answer.status_code == 200, answer.text
    purchase = gateway.simulator.book()[0]
    assert (purchase["references"], purchase["mask"]) == (1, True)
    assert not gateway.leftovers()


def test_json_edits_fetch_allowed_links(gateways: Gateways) -> None:
    """A picture and a mask behind http links are downloaded from an origin that the catalogue allows."""
    with file_server({"/cat.png": png(80, 64), "/mask.png": mask(80, 64)}) as origin:
        gateway = gateways.open(limits={"image_url_origins": [origin]})
        body = {
            "prompt": "a cat",
            "model": OFFICIAL,
            "images": [{"image_url": f"{origin}/cat.png"}, {"image_url": data_url(png())}],
            "mask": {"image_url": f"{origin}/mask.png"},
        }
        answer = gateway.post(EDITS, json=body)
        assert answer.status_code == 200, answer.text
        assert [file["size"] for file in gateway.simulator.log("edits")[0]["files"]] == ["80x64", "64x64", "80x64"]
        body["images"][1] = {"image_url": f"{origin}/none.png"}
        error = error_of(gateway.post(EDITS, json=body))
        assert (error["code"], error["param"]) == ("invalid_value", "images[1].image_url")
        assert not gateway.leftovers()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.png", "https://localhost/x.png", "https://10.0.0.1/x.png"])
def test_private_links_are_refused(gateway: Gateway, url: str) -> None:
    """A caller cannot make the gateway open an address inside the network."""
    answer = gateway.post(EDITS, json={"prompt": "a cat", "model": OFFICIAL, "images": [{"image_url": url}]})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "images[0].image_url"
    assert not gateway.simulator.paid()


def test_routes_answer_without_v1(gateway: Gateway) -> None:
    """A base URL pasted without /v1 works for both image routes."""
    assert gateway.post("/images/generations", json=small()).status_code == 200
    body = {"prompt": "a cat", "model": OFFICIAL, "images": [{"image_url": data_url(png())}]}
    assert gateway.post("/images/edits", json=body).status_code == 200


@pytest.mark.parametrize("prefix", ["/v1", ""])
@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/images/variations", "/v1/images/edits"),
        ("/chat/completions", "/v1/images/generations"),
        ("/responses", "/v1/images/generations"),
    ],
)
def test_other_endpoints_name_ours(gateway: Gateway, prefix: str, path: str, named: str) -> None:
    """OpenAI's other endpoints answer 404 and say which one to use."""
    answer = gateway.post(prefix + path, json={})
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (404, "unsupported_endpoint")
    assert named in error["message"]


def test_unknown_route_names_ours(gateway: Gateway) -> None:
    """A path nobody serves is a 404 in OpenAI's shape."""
    for path in ("/", "/v1", "/v1/images", "/v2/images/generations", "/v1/images/generations/x", "/%00", "/docs"):
        answer = gateway.get(path)
        assert answer.status_code == 404, path
        assert error_of(answer)["code"] == "unknown_url"


def test_wrong_method_names_right_one(gateway: Gateway) -> None:
    """A known path with another method is a 405 that lists the right one."""
    for method, path, allowed in (("GET", GENERATIONS, "POST"), ("PUT", EDITS, "POST"), ("POST", "/v1/models", "GET")):
        answer = gateway.request(method, path)
        assert answer.status_code == 405
        assert error_of(answer)["code"] == "method_not_allowed"
        assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Basic dTpw", "igw_x", "Bearer sk-1234567890abcdef", "Bearer igw_" + "0" * 38],
)
def test_wrong_key_is_refused(gateway: Gateway, header: str | None) -> None:
    """Without a key that exists the answer is a 401, and the message never repeats a whole key."""
    headers = {} if header is None else {"authorization": header}
    answer = gateway.client.post(GENERATIONS, json=small(), headers=headers)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (401, "invalid_api_key")
    assert "1234567890" not in error["message"]
    assert not gateway.simulator.paid()


def test_strange_key_bytes_are_refused(gateway: Gateway) -> None:
    """A key that is not even ASCII is a wrong key and no fault."""
    answer = gateway.client.post(GENERATIONS, json=small(), headers=[(b"authorization", "Bearer igw_ключ".encode())])
    assert answer.status_code == 401
    assert error_of(answer)["code"] == "invalid_api_key"


def test_key_is_checked_before_body(gateway: Gateway) -> None:
    """A caller without a key is refused before its upload is read."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST {EDITS} HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n"
        connection.sendall(f"{head}content-length: 100000000\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_disabled_key_is_told(gateway: Gateway) -> None:
    """A disabled key works no more, from the next request on, and works again once enabled."""
    assert gateway.record is not None
    gateway.change_key(gateway.record.id, enabled=False)
    answer = gateway.generate()
    assert (answer.status_code, error_of(answer)["code"]) == (403, "key_disabled")
    gateway.change_key(gateway.record.id, enabled=True)
    assert gateway.generate().status_code == 200


def test_unknown_model_lists_models(gateway: Gateway) -> None:
    """A model that does not exist is a 404 that names those that do."""
    answer = gateway.generate(model="gpt-4o")
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    for name in ("gpt-image-2", OFFICIAL, VARIANT, TASKS, "dall-e-3"):
        assert name in error["message"]


def test_key_may_be_bound_to_models(gateway: Gateway) -> None:
    """A key bound to one model gets no other, not even by an alias."""
    _, secret = gateway.new_key(models=[VARIANT])
    bound = {"authorization": f"Bearer {secret}"}
    for model in (OFFICIAL, "dall-e-3"):
        answer = gateway.client.post(GENERATIONS, json=small(model=model), headers=bound)
        assert (answer.status_code, error_of(answer)["code"]) == (403, "model_not_allowed")
    assert gateway.client.post(GENERATIONS, json=small(model=VARIANT), headers=bound).status_code == 200


def test_upstream_without_key_is_off(gateways: Gateways) -> None:
    """An upstream whose key is not set takes no part: its model says so, the shared one goes round it."""
    gateway = gateways.open(env={"ANYFAST_API_KEY": "sim-direct"})
    answer = gateway.generate(model=TASKS)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "upstream_unavailable")
    assert answer.headers["x-should-retry"] == "false"
    assert gateway.generate(model="gpt-image-2").headers["x-gateway-upstream"] == "anyfast"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": "transparent"}, "background"),
        ({"model": TASKS, "size": "1280x720"}, "size"),
    ],
)
def test_impossible_wish_names_reason(gateway: Gateway, fields: dict[str, Any], param: str) -> None:
    """A valid value that no upstream can honour is a 400 that says which and why, and nothing is sent."""
    answer = gateway.generate(**fields)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_value", param)
    assert not gateway.simulator.paid()


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


def test_slow_upstream_ends_in_504(gateway: Gateway) -> None:
    """The caller is answered before its own time-out; the work goes on, is recorded and kept."""
    gateway.simulator.fault("latency", seconds=1.3)
    started = time.monotonic()
    answer = gateway.generate(headers={"x-stainless-read-timeout": "1"})
    assert time.monotonic() - started < 1
    assert (answer.status_code, error_of(answer)["code"]) == (504, "task_still_running")
    task_id = answer.headers["x-gateway-task"]
    assert gateway.read_task(task_id)["status"] == "processing"
    wait_until(lambda: gateway.read_task(task_id)["status"] == "succeeded", "the end of the task")
    images = json.loads(gateway.read_task(task_id)["images"])
    assert [path.name for path in gateway.pictures() if path.name in images] == images
    assert len(gateway.simulator.book()) == 1
    assert not gateway.leftovers()


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "soon", "1e999"])
def test_strange_timeout_is_no_timeout(gateway: Gateway, value: str) -> None:
    """A time-out header that makes no sense changes nothing."""
    assert gateway.generate(headers={"x-stainless-read-timeout": value}).status_code == 200


@pytest.mark.parametrize("model", [OFFICIAL, TASKS])
def test_hang_up_keeps_paid_image(gateway: Gateway, model: str) -> None:
    """A client that hangs up does not lose a paid image: the work ends, is recorded and stored."""
    before = {path.name for path in gateway.pictures()}
    gateway.simulator.fault("latency", seconds=0.8)
    with pytest.raises(httpx.ReadTimeout):
        gateway.client.post(GENERATIONS, json=small(model=model, size="1024x1024"), headers=gateway.auth, timeout=0.4)
    wait_until(gateway.simulator.book, "the submission")
    record = wait_until(
        lambda: next((one for one in gateway.task_records() if one["status"] == "succeeded"), None), "the task's end"
    )
    stored = {path.name for path in gateway.pictures()} - before
    assert set(json.loads(record["images"])) <= stored
    assert len(gateway.simulator.book()) == 1
    assert not gateway.leftovers()


def test_half_upload_leaves_nothing(gateway: Gateway) -> None:
    """A client that leaves in the middle of its upload leaves no file, no bytes counted and no call."""
    host, port = gateway.url.removeprefix("http://").split(":")
    part = b'--b\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n' + png() + b"x" * 3_000_000
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST {EDITS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
        head += "content-type: multipart/form-data; boundary=b\r\ncontent-length: 90000000\r\n\r\n"
        connection.sendall(head.encode() + part)
        wait_until(lambda: gateway.services.in_flight.used, "the upload's begin")
    assert not gateway.leftovers()
    assert not gateway.simulator.paid()


def test_store_away_stops_spending(gateway: Gateway, valkey: Valkey) -> None:
    """While Redis does not answer, nothing is sent: a 503 in time, and work again when it is back."""
    with valkey.paused():
        started = time.monotonic()
        answer = gateway.generate()
        assert time.monotonic() - started < 2
        assert (answer.status_code, error_of(answer)["code"]) == (503, "quota_store_unavailable")
        assert answer.headers["retry-after"] == "5"
        assert not gateway.simulator.paid()
    wait_until(lambda: gateway.generate().status_code == 200, "the return of the store")


def test_every_call_is_recorded_first(gateway: Gateway) -> None:
    """The task's record names each paid call, its upstream and its slots."""
    answer = gateway.generate(model=VARIANT, n=2)
    record = gateway.read_task(answer.headers["x-gateway-task"])
    calls = [json.loads(value) for name, value in record.items() if name.startswith("call:")]
    assert sorted(call["slots"] for call in calls) == [[0], [1]]
    assert {call["upstream"] for call in calls} == {"anyfast-c/main"}
    assert gateway.record is not None
    assert record["key_id"] == gateway.record.id
    assert "a cat" not in str(record)


def test_jpeg_compression_reaches_vendor(gateway: Gateway) -> None:
    """`output_compression` goes upstream with jpeg; with png, where it cannot work, the caller is told."""
    heavy = gateway.generate(output_format="jpeg", output_compression=5)
    assert gateway.simulator.paid()[0]["fields"]["output_compression"] == 5
    assert "x-gateway-dropped-params" not in heavy.headers
    answer = gateway.generate(output_compression=50)
    assert answer.headers["x-gateway-dropped-params"] == "output_compression"
    assert "x-gateway-dropped-params" not in gateway.generate(output_compression=100).headers


def test_references_keep_upright_shape(gateway: Gateway) -> None:
    """With `auto` size an edit keeps the first image's shape, as it is displayed."""
    answer = gateway.edit({"image": encode("PNG", 120, 60)}, size="auto")
    width, height = (int(edge) for edge in answer.json()["size"].split("x"))
    assert width == pytest.approx(2 * height, rel=0.05)
