"""openai-python generates: both clients, every upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.sdk_views import ASKED_SIZE, PINNED, SIZE, UPSTREAMS, look_at_text, look_behind

if TYPE_CHECKING:
    from tests.support.sdk_views import Simulator

pytestmark = pytest.mark.slow

each_model = pytest.mark.parametrize("model", PINNED)


@each_model
def test_generation_returns_its_picture(sdk: Any, model: str, vendors: Simulator) -> None:
    """A plain request gets one PNG of the size asked for, as base64 and without a link, for one purchase."""
    answer = sdk.call("images.generate", model=model, prompt="a fox", size=ASKED_SIZE)
    (picture,) = answer.data
    assert look_at_text(picture.b64_json) == ("png", SIZE)
    assert picture.url is None
    assert (answer.size, answer.output_format, answer.background) == (ASKED_SIZE, "png", "opaque")
    assert answer.created > 1_700_000_000
    assert [purchase["n"] for purchase in vendors.book()] == [1]


@each_model
def test_three_pictures_are_three(sdk: Any, model: str, vendors: Simulator) -> None:
    """`n=3` gets three pictures and buys three, whether or not the upstream makes several at once."""
    answer = sdk.call("images.generate", model=model, prompt="a fox", size=ASKED_SIZE, n=3)
    assert [look_at_text(picture.b64_json) for picture in answer.data] == [("png", SIZE)] * 3
    bought = [purchase["n"] for purchase in vendors.book()]
    assert bought == ([1, 1, 1] if model == "anyfast/gpt-image-2-c" else [3])


@each_model
def test_link_leads_to_picture(sdk: Any, model: str) -> None:
    """`response_format="url"` gets a link that needs no key, from upstreams that know no such parameter too."""
    answer = sdk.call("images.generate", model=model, prompt="a fox", size=ASKED_SIZE, response_format="url")
    (picture,) = answer.data
    assert picture.b64_json is None
    assert look_behind(picture.url) == ("png", SIZE)


@each_model
@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_picture_has_format_asked_for(sdk: Any, model: str, form: str) -> None:
    """Every format arrives from every upstream, and the answer names it."""
    more = {} if form == "png" else {"output_compression": 60}
    answer = sdk.call("images.generate", model=model, prompt="a fox", size=ASKED_SIZE, output_format=form, **more)
    assert look_at_text(answer.data[0].b64_json) == (form, SIZE)
    assert answer.output_format == form


@each_model
def test_stream_completes_with_picture(sdk: Any, model: str) -> None:
    """`stream=True` gets a completed event with the whole picture."""
    events = sdk.call("images.generate", model=model, prompt="a fox", size=ASKED_SIZE, stream=True, partial_images=2)
    assert [event.type for event in events] == ["image_generation.completed"]
    assert look_at_text(events[0].b64_json) == ("png", SIZE)
    assert (events[0].size, events[0].output_format) == (ASKED_SIZE, "png")


@each_model
def test_stream_of_two_has_two_events(sdk: Any, model: str) -> None:
    """A stream of `n=2` completes twice."""
    events = sdk.call("images.generate", model=model, prompt="a fox", size=ASKED_SIZE, n=2, stream=True)
    assert [look_at_text(event.b64_json) for event in events] == [("png", SIZE)] * 2


@each_model
def test_every_parameter_is_honoured_or_told(sdk: Any, model: str, vendors: Simulator) -> None:
    """With all parameters given, the picture arrives, and the header names those that had no effect."""
    raw = sdk.call(
        "images.with_raw_response.generate",
        model=model,
        prompt="a fox",
        size=ASKED_SIZE,
        n=1,
        quality="high",
        background="opaque",
        moderation="low",
        output_format="jpeg",
        output_compression=70,
        style="vivid",
        user="somebody",
    )
    told = set(raw.headers["x-gateway-dropped-params"].split(","))
    # Only apiany's pages name no `moderation`.
    assert told == {"style", "user"} | ({"moderation"} if model == "apiany/gpt-image-2" else set())
    answer = raw.parse()
    assert look_at_text(answer.data[0].b64_json) == ("jpeg", SIZE)
    assert answer.quality == "high"
    assert [purchase["quality"] for purchase in vendors.book()] == ["high"]
    assert vendors.log()


def test_nulls_mean_absent(sdk: Any) -> None:
    """Parameters given as None, which this library sends as null, are as if they were not given."""
    answer = sdk.call(
        "images.generate", model=PINNED[0], prompt="a fox", n=None, size=None, quality=None, output_format=None
    )
    assert look_at_text(answer.data[0].b64_json) == ("png", (1024, 1024))


def test_open_model_finds_an_upstream(sdk: Any) -> None:
    """`gpt-image-2` is served by whichever upstream the routing chose, which the header names."""
    raw = sdk.call("images.with_raw_response.generate", model="gpt-image-2", prompt="a fox", size=ASKED_SIZE)
    assert raw.headers["x-gateway-upstream"] in UPSTREAMS.values()
    assert look_at_text(raw.parse().data[0].b64_json) == ("png", SIZE)


def test_old_model_name_answers_links(sdk: Any) -> None:
    """`dall-e-3` keeps its default: a link."""
    answer = sdk.call("images.generate", model="dall-e-3", prompt="a fox", quality="hd", style="natural")
    assert look_behind(answer.data[0].url)[0] == "png"


def test_extensions_pass_through_extra_body(sdk: Any) -> None:
    """`resolution` and `aspect_ratio`, in `extra_body`, choose the size."""
    extra = {"resolution": "2K", "aspect_ratio": "16:9"}
    answer = sdk.call("images.generate", model="apiany/gpt-image-2", prompt="a fox", extra_body=extra)
    assert look_at_text(answer.data[0].b64_json) == ("png", (2048, 1152))
