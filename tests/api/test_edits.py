"""Edits in every dialect that clients speak: multipart and JSON, files, data URLs and links."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.gateways import EDITS, OFFICIAL, SMALLEST, Gateway, Gateways, error_of
from tests.support.plain_pictures import data_url, encode, mask, png


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


@pytest.mark.parametrize("host", ["as given", "https://pictures.invalid"])
@pytest.mark.parametrize("dialect", ["json", "form"])
def test_own_links_are_read_from_storage(gateway: Gateway, host: str, dialect: str) -> None:
    """The gateway's own link is a reference without a download, whatever host a proxy gave it."""
    url = gateway.generate(response_format="url").json()["data"][0]["url"]
    if host != "as given":
        url = host + url[url.index("/v1/") :]
    if dialect == "json":
        answer = gateway.post(EDITS, json={"prompt": "a cat", "model": OFFICIAL, "images": [{"image_url": url}]})
    else:
        answer = gateway.edit({"image": (None, url)})
    assert answer.status_code == 200, answer.text
    assert [file["size"] for file in gateway.simulator.log("edits")[0]["files"]] == [SMALLEST]
    assert not gateway.leftovers()


@pytest.mark.parametrize("query", ["exp=1&sig=v1.x", "", "exp=99999999999&sig=v1.x"])
def test_unsigned_own_link_opens_nothing(gateway: Gateway, query: str) -> None:
    """A link that the gateway did not sign, or that has expired, is no reference."""
    url = gateway.generate(response_format="url").json()["data"][0]["url"].partition("?")[0]
    body = {"prompt": "a cat", "model": OFFICIAL, "images": [{"image_url": f"{url}?{query}"}]}
    error = error_of(gateway.post(EDITS, json=body))
    assert (error["code"], error["param"]) == ("invalid_value", "images[0].image_url")
    assert len(gateway.simulator.book()) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.png", "https://localhost/x.png", "https://10.0.0.1/x.png"])
def test_private_links_are_refused(gateway: Gateway, url: str) -> None:
    """A caller cannot make the gateway open an address inside the network."""
    answer = gateway.post(EDITS, json={"prompt": "a cat", "model": OFFICIAL, "images": [{"image_url": url}]})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "images[0].image_url"
    assert not gateway.simulator.paid()


def test_references_keep_upright_shape(gateway: Gateway) -> None:
    """With `auto` size an edit keeps the first image's shape, as it is displayed."""
    answer = gateway.edit({"image": encode("PNG", 120, 60)}, size="auto")
    width, height = (int(edge) for edge in answer.json()["size"].split("x"))
    assert width == pytest.approx(2 * height, rel=0.05)
