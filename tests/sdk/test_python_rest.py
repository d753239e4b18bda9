"""openai-python beyond pictures: errors, models, and what the headers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.support.sdk_views import ASKED_SIZE, PINNED, SIZE, UPSTREAMS, look_at_text

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sdk_views import Gateway, Simulator

pytestmark = pytest.mark.slow

each_model = pytest.mark.parametrize("model", PINNED)


@each_model
def test_headers_tell_who_made_it(sdk: Any, model: str) -> None:
    """Every answer says its request id, its upstream, and that a simulator drew the picture."""
    raw = sdk.call("images.with_raw_response.generate", model=model, prompt="a fox", size=ASKED_SIZE)
    assert raw.headers["x-gateway-upstream"] == UPSTREAMS[model]
    assert raw.headers["x-gateway-simulated"] == "1"
    assert raw.headers["x-gateway-size"] == f"{ASKED_SIZE}->{ASKED_SIZE}"
    assert raw.headers["x-gateway-calls"] == "1"
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.parse()._request_id == raw.headers["x-request-id"]


def test_wrong_key_is_named(sdk: Any, vendors: Simulator) -> None:
    """A wrong key is an AuthenticationError with a request id, and no vendor hears of it."""
    with pytest.raises(openai.AuthenticationError) as refused:
        sdk.call("images.generate", key="igw_wrong", model=PINNED[0], prompt="a fox")
    assert refused.value.code == "invalid_api_key"
    assert refused.value.request_id
    assert vendors.log() == []


def test_wrong_key_is_named_despite_upload(gateway: Gateway) -> None:
    """The wrong key is what is told, not a broken connection, while 40 MB are being sent."""
    client = openai.OpenAI(base_url=gateway.base_url, api_key="igw_wrong", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError):
        client.images.edit(model=PINNED[0], image=bytes(40_000_000), prompt="a fox")


def test_bad_size_names_size(sdk: Any, vendors: Simulator) -> None:
    """A size that is against the rules is a BadRequestError of `size`, and no vendor hears of it."""
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.call("images.generate", model=PINNED[0], prompt="a fox", size="1000x1000")
    assert (refused.value.param, refused.value.code) == ("size", "invalid_value")
    assert refused.value.type == "invalid_request_error"
    assert "16" in refused.value.message
    assert vendors.log() == []


def test_refusal_before_stream_is_an_error(sdk: Any) -> None:
    """A mistake in a streamed request keeps its status."""
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.call("images.generate", model=PINNED[0], prompt="a fox", size="1000x1000", stream=True)
    assert refused.value.param == "size"


def test_unknown_model_is_not_found(sdk: Any) -> None:
    """An unknown model is a NotFoundError that lists the known ones."""
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.call("images.generate", model="no-such-model", prompt="a fox")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert PINNED[2] in refused.value.message


@pytest.mark.vendor_refuses
@each_model
def test_refused_prompt_is_told_once(sdk: Any, model: str, vendors: Simulator) -> None:
    """A prompt that the vendor's safety system refuses is `moderation_blocked`, and is not tried again."""
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.call("images.generate", model=model, prompt="forbidden-content", size=ASKED_SIZE)
    assert (refused.value.code, refused.value.type) == ("moderation_blocked", "image_generation_user_error")
    assert len([one for one in vendors.log() if one["method"] == "POST"]) == 1


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the library's own word on variations
def test_variations_name_edits(sdk: Any, pictures: Path) -> None:
    """Variations, which OpenAI retired, are a NotFoundError that names the route to use."""
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.call("images.create_variation", image=pictures / "first.png")
    assert refused.value.code == "unsupported_endpoint"
    assert "/v1/images/edits" in refused.value.message


def test_chat_names_image_routes(sdk: Any) -> None:
    """Chat completions are a NotFoundError that names what this gateway serves."""
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.call("chat.completions.create", model="gpt-image-2", messages=[{"role": "user", "content": "a fox"}])
    assert refused.value.code == "unsupported_endpoint"


def test_models_are_listed(sdk: Any) -> None:
    """The list holds the open model and the pinned ones."""
    listed = {model.id for model in sdk.call("models.list").data}
    assert {"gpt-image-2", *PINNED} <= listed


@pytest.mark.parametrize("model", ["gpt-image-2", *PINNED])
def test_model_is_found_by_its_id(sdk: Any, model: str) -> None:
    """A model is found by its id, also when that holds a slash."""
    found = sdk.call("models.retrieve", model=model)
    assert (found.id, found.object) == (model, "model")


def test_unknown_id_is_not_found(sdk: Any) -> None:
    """An unknown id is a NotFoundError."""
    with pytest.raises(openai.NotFoundError):
        sdk.call("models.retrieve", model="anyfast/no-such-model")


def test_raw_stream_of_bytes_is_whole(gateway: Gateway) -> None:
    """`with_streaming_response`, which reads the answer piece by piece, gets all of it."""
    client = openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0)
    arguments: dict[str, Any] = {"model": PINNED[0], "prompt": "a fox", "size": ASKED_SIZE}
    with client, client.images.with_streaming_response.generate(**arguments) as response:
        answer = response.parse()
    assert look_at_text(answer.data[0].b64_json) == ("png", SIZE)
