"""npm `openai`, and `ai` with `@ai-sdk/openai`, drive the gateway; one run of a driver holds all of its cases."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import clean_environment
from tests.support.sdk_views import ASKED_SIZE, PINNED, SIZE, UPSTREAMS, Gateway, Simulator, look_at_text, look_behind

pytestmark = pytest.mark.slow

NODE = Path(__file__).parent / "node"

each_model = pytest.mark.parametrize("model", PINNED)

OLDEST = 18
"""Both libraries' packages ask for Node 22; they were run on 18 and on 20 as well."""

Tell = Callable[[str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def node_version() -> int:
    """The major version of a Node that has all packages."""
    subprocess.run([NODE.parents[2] / "scripts" / "node.sh"], check=True, timeout=600)
    told = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True, timeout=30).stdout
    return int(told.removeprefix("v").partition(".")[0])


@pytest.fixture(scope="session")
def runs() -> dict[tuple[str, str], dict[str, Any]]:
    return {}


def run_driver(driver: str, model: str, gateway: Gateway, pictures: Path, *cases: str) -> dict[str, Any]:
    """What a library got in these cases, or in all."""
    command = ["node", f"{driver}.mjs", gateway.base_url, gateway.key, model, str(pictures), *cases]
    ended = subprocess.run(
        command, cwd=NODE, env=clean_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


@pytest.fixture
def openai(node_version: int, runs: dict[tuple[str, str], dict[str, Any]], gateway: Gateway, pictures: Path) -> Tell:
    """What npm `openai` got for a model and a case."""

    def tell(model: str, case: str) -> dict[str, Any]:
        if ("openai", model) not in runs:
            runs["openai", model] = run_driver("openai", model, gateway, pictures)
        return dict(runs["openai", model][case])

    return tell


@pytest.fixture
def ai(node_version: int, runs: dict[tuple[str, str], dict[str, Any]], gateway: Gateway, pictures: Path) -> Tell:
    """What npm `ai` got for a model and a case."""
    if node_version < OLDEST:
        asked = json.loads((NODE / "node_modules" / "ai" / "package.json").read_text())["engines"]["node"]
        pytest.skip(f"npm `ai` asks for Node {asked} and was run on {OLDEST}; this is Node {node_version}")

    def tell(model: str, case: str) -> dict[str, Any]:
        if ("ai", model) not in runs:
            runs["ai", model] = run_driver("ai", model, gateway, pictures)
        return dict(runs["ai", model][case])

    return tell


def look_at_all(told: dict[str, Any]) -> list[tuple[str, tuple[int, int]]]:
    assert "error" not in told, told
    return [look_at_text(image) for image in told["images"]]


@each_model
@pytest.mark.parametrize(
    ("case", "form", "count"),
    [
        ("generate", "png", 1),
        ("three", "png", 3),
        ("jpeg", "jpeg", 1),
        ("webp", "webp", 1),
        ("edit", "png", 1),
        ("edit_from_disk", "png", 1),
        ("edit_list_of_one", "png", 1),
        ("edit_four", "png", 1),
        ("edit_mask", "png", 1),
    ],
)
def test_openai_gets_its_pictures(openai: Tell, model: str, case: str, form: str, count: int) -> None:
    """npm `openai` gets as many pictures as it asked for, of the format and size it asked for."""
    told = openai(model, case)
    assert look_at_all(told) == [(form, SIZE)] * count
    assert (told["size"], told["format"]) == (ASKED_SIZE, form)


@each_model
def test_openai_follows_link(openai: Tell, model: str) -> None:
    """npm `openai` gets a link that leads to the picture."""
    told = openai(model, "link")
    assert [look_behind(url) for url in told["urls"]] == [("png", SIZE)]


@each_model
@pytest.mark.parametrize(
    ("case", "event"), [("stream", "image_generation.completed"), ("edit_stream", "image_edit.completed")]
)
def test_openai_reads_stream(openai: Tell, model: str, case: str, event: str) -> None:
    """npm `openai` iterates over a stream and finds the picture in its one event."""
    told = openai(model, case)
    assert look_at_all(told) == [("png", SIZE)]
    assert told["types"] == [event]


@each_model
def test_openai_lists_models(openai: Tell, model: str) -> None:
    """npm `openai` lists the models and finds one whose id holds a slash."""
    told = openai(model, "models")
    assert {"gpt-image-2", *PINNED} <= set(told["ids"])
    assert told["found"] == model


@each_model
def test_openai_sees_headers(openai: Tell, model: str) -> None:
    """npm `openai` sees the request id, the upstream, the simulator and what was dropped."""
    told = openai(model, "headers")
    headers = told["headers"]
    assert headers["x-gateway-upstream"] == UPSTREAMS[model]
    assert headers["x-gateway-simulated"] == "1"
    assert headers["x-gateway-dropped-params"] == "style"
    assert headers["x-request-id"] == told["requestId"] == told["onData"]


@each_model
@pytest.mark.parametrize(
    ("case", "name", "code", "param"),
    [
        ("wrong_key", "AuthenticationError", "invalid_api_key", None),
        ("wrong_key_upload", "AuthenticationError", "invalid_api_key", None),
        ("bad_size", "BadRequestError", "invalid_value", "size"),
        ("unknown_model", "NotFoundError", "model_not_found", "model"),
        ("variation", "NotFoundError", "unsupported_endpoint", None),
    ],
)
def test_openai_tells_errors_apart(openai: Tell, model: str, case: str, name: str, code: str, param: str) -> None:
    """npm `openai` raises the class of each error, with code, param and request id."""
    error = openai(model, case)["error"]
    assert (error["name"], error["code"], error["param"]) == (name, code, param)
    assert error["requestId"].startswith("req_")


@each_model
@pytest.mark.parametrize(
    ("case", "form", "count"),
    [
        ("generate", "png", 1),
        ("three", "png", 3),
        ("jpeg", "jpeg", 1),
        ("webp", "webp", 1),
        ("edit", "png", 1),
        ("edit_two", "png", 1),
        ("edit_mask", "png", 1),
    ],
)
def test_ai_gets_its_pictures(ai: Tell, model: str, case: str, form: str, count: int) -> None:
    """npm `ai` gets as many pictures as it asked for, of the format and size it asked for, without a warning."""
    told = ai(model, case)
    assert look_at_all(told) == [(form, SIZE)] * count
    assert told["mediaTypes"] == [f"image/{form}"] * count
    assert told["warnings"] == []


@each_model
def test_ai_sends_twins_that_stay_apart(ai: Tell, model: str) -> None:
    """npm `ai` splits `n=3` of a model it does not know into three equal requests, each a task of its own."""
    tasks = {headers["x-gateway-task"] for headers in ai(model, "three")["headers"]}
    assert len(tasks) == 3


@each_model
def test_ai_sees_dropped_parameters(ai: Tell, model: str) -> None:
    """npm `ai` finds in the headers which parameters had no effect."""
    (headers,) = ai(model, "told")["headers"]
    assert {"style", "user"} <= set(headers["x-gateway-dropped-params"].split(","))


@each_model
@pytest.mark.parametrize(
    ("case", "status", "code"),
    [
        ("wrong_key", 401, "invalid_api_key"),
        ("bad_size", 400, "invalid_value"),
        ("unknown_model", 404, "model_not_found"),
    ],
)
def test_ai_reads_errors(ai: Tell, model: str, case: str, status: int, code: str) -> None:
    """npm `ai` reads the error's message and code, and does not take it for one to retry."""
    error = ai(model, case)["error"]
    assert (error["name"], error["status"], error["code"]) == ("APICallError", status, code)
    assert error["message"]
    assert error["isRetryable"] is False


def test_ai_asks_known_model_once(node_version: int, gateway: Gateway, pictures: Path, vendors: Simulator) -> None:
    """npm `ai` sends `gpt-image-2`, a name it knows, one request for `n=3`."""
    if node_version < OLDEST:
        pytest.skip(f"this is Node {node_version}")
    told = run_driver("ai", "gpt-image-2", gateway, pictures, "three")["three"]
    assert look_at_all(told) == [("png", SIZE)] * 3
    assert len(told["headers"]) == 1
