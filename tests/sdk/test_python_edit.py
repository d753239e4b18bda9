"""openai-python edits: both clients, every upstream."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.support.sdk_views import ASKED_SIZE, PINNED, SIZE, look_at_text, look_behind

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sdk_views import Simulator

pytestmark = pytest.mark.slow

each_model = pytest.mark.parametrize("model", PINNED)


@each_model
@pytest.mark.parametrize("given", ["path", "bytes", "file", "named", "list of one"])
def test_one_picture_in_any_form(sdk: Any, model: str, given: str, pictures: Path, vendors: Simulator) -> None:
    """One reference is understood however the library was given it."""
    path = pictures / "first.png"
    forms: dict[str, Any] = {
        "path": path,
        "bytes": path.read_bytes(),
        "file": io.BytesIO(path.read_bytes()),
        "named": ("first.png", path.read_bytes(), "image/png"),
        "list of one": [path],
    }
    answer = sdk.call("images.edit", model=model, image=forms[given], prompt="at night", size=ASKED_SIZE)
    assert [look_at_text(picture.b64_json) for picture in answer.data] == [("png", SIZE)]
    assert [purchase["references"] for purchase in vendors.book()] == [1]


@each_model
def test_four_references_all_arrive(sdk: Any, model: str, pictures: Path, vendors: Simulator) -> None:
    """Four references reach the vendor as four."""
    images = [pictures / f"{name}.png" for name in ("first", "second", "third", "fourth")]
    answer = sdk.call("images.edit", model=model, image=images, prompt="together", size=ASKED_SIZE)
    assert look_at_text(answer.data[0].b64_json) == ("png", SIZE)
    assert [purchase["references"] for purchase in vendors.book()] == [4]


@each_model
def test_mask_reaches_vendor(sdk: Any, model: str, pictures: Path, vendors: Simulator) -> None:
    """A mask with one reference is honoured by every upstream."""
    answer = sdk.call(
        "images.edit", model=model, image=pictures / "first.png", mask=pictures / "mask.png", prompt="a door here"
    )
    assert look_at_text(answer.data[0].b64_json)[0] == "png"
    assert [(purchase["mask"], purchase["references"]) for purchase in vendors.book()] == [(True, 1)]


def test_mask_that_cannot_be_honoured_is_refused(sdk: Any, pictures: Path, vendors: Simulator) -> None:
    """A mask with two references is refused where the upstream takes it with one only, and nothing is bought."""
    images = [pictures / "first.png", pictures / "second.png"]
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.call("images.edit", model=PINNED[2], image=images, mask=pictures / "mask.png", prompt="a door")
    assert refused.value.code == "unsupported_value"
    assert vendors.book() == []


@each_model
def test_edit_makes_several(sdk: Any, model: str, pictures: Path, vendors: Simulator) -> None:
    """`n=2` on edits gets two pictures, as webp links, and buys two."""
    answer = sdk.call(
        "images.edit",
        model=model,
        image=pictures / "first.png",
        prompt="at night",
        size=ASKED_SIZE,
        n=2,
        output_format="webp",
        response_format="url",
    )
    assert [look_behind(picture.url) for picture in answer.data] == [("webp", SIZE)] * 2
    assert sum(purchase["n"] for purchase in vendors.book()) == 2


@each_model
def test_edit_streams(sdk: Any, model: str, pictures: Path) -> None:
    """`stream=True` on edits gets an edit's completed event."""
    events = sdk.call(
        "images.edit", model=model, image=pictures / "first.png", prompt="at night", size=ASKED_SIZE, stream=True
    )
    assert [event.type for event in events] == ["image_edit.completed"]
    assert look_at_text(events[0].b64_json) == ("png", SIZE)


def test_reference_that_is_no_picture_is_refused(sdk: Any, vendors: Simulator) -> None:
    """A file that is no picture is the caller's mistake, found before anything is bought."""
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.call("images.edit", model=PINNED[0], image=b"no picture at all", prompt="at night")
    assert refused.value.param in {"image", "image[]"}
    assert vendors.log() == []
