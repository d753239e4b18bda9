"""The list of models, as each key sees it."""

from __future__ import annotations

import time
from urllib.parse import quote

from tests.support.gateways import OFFICIAL, TASKS, VARIANT, Gateway, Gateways, error_of

ALL = ["gpt-image-2", OFFICIAL, VARIANT, TASKS, "dall-e-3"]


def test_list_is_openai_shaped(gateway: Gateway) -> None:
    """Every public name is listed once, aliases after models."""
    body = gateway.get("/v1/models").json()
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ALL
    for model in body["data"]:
        assert set(model) == {"id", "object", "created", "owned_by"}
        assert model["object"] == "model"
        assert 0 < model["created"] < time.time()


def test_one_model_by_name(gateway: Gateway) -> None:
    """A model is found by its name, with its slash plain or as the SDKs escape it."""
    for name in ALL:
        for path in (name, quote(name, safe="")):
            assert gateway.get(f"/v1/models/{path}").json()["id"] == name


def test_unknown_model_names_others(gateway: Gateway) -> None:
    """A model that does not exist is a 404 that lists those that do."""
    answer = gateway.get("/v1/models/gpt-4o")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    assert OFFICIAL in error_of(answer)["message"]


def test_key_sees_its_models_only(gateway: Gateway) -> None:
    """A key bound to some models is shown those, and told nothing of the others."""
    _, secret = gateway.new_key(models=[TASKS])
    bound = {"authorization": f"Bearer {secret}"}
    assert [model["id"] for model in gateway.get("/v1/models", headers=bound).json()["data"]] == [TASKS]
    answer = gateway.get(f"/v1/models/{OFFICIAL}", headers=bound)
    assert answer.status_code == 404
    assert VARIANT not in error_of(answer)["message"]


def test_models_need_key(gateway: Gateway) -> None:
    """Without a key there is no list."""
    for path in ("/v1/models", f"/v1/models/{OFFICIAL}"):
        answer = gateway.client.get(path)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")


def test_models_without_upstream_are_hidden(gateways: Gateways) -> None:
    """A model whose upstreams are all off is not offered."""
    gateway = gateways.open(env={"APIANY_API_KEY": "sim-apiany"})
    assert [model["id"] for model in gateway.get("/v1/models").json()["data"]] == ["gpt-image-2", TASKS, "dall-e-3"]
