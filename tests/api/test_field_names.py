"""Other names, near names and empty values of fields, over HTTP: honoured, refused or absent, never just ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.forms import form
from tests.support.gateways import EDITS, OFFICIAL, Gateway, assert_refused, error_of
from tests.support.plain_pictures import data_url, mask, png

PICTURE, MASK = data_url(png()), data_url(mask())

BASE: dict[str, Any] = {"model": OFFICIAL, "prompt": "a cat"}


DRY = {"x-gateway-dry-run": "1"}


def edit(gateway: Gateway, fields: dict[str, Any]) -> Any:
    """A JSON edit with the fields, and one image unless they have it."""
    return gateway.post(EDITS, json={**BASE, "image": PICTURE, **fields})


def plan_form(gateway: Gateway, *parts: tuple[str, bytes]) -> dict[str, Any]:
    """The plan of an edit in a form with these parts: how many references it has, and if it has a mask."""
    body, headers = form(('name="prompt"', b"a cat"), ('name="model"', OFFICIAL.encode()), *parts)
    answer = gateway.post(EDITS, content=body, headers=headers | DRY)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("name", ["mask", "mask_url", "mask_image"])
@pytest.mark.parametrize("value", [MASK, {"image_url": MASK}, [MASK]], ids=["text", "object", "list"])
def test_mask_has_other_names(gateway: Gateway, name: str, value: Any) -> None:
    """A mask in JSON is honoured under each of its names."""
    plan = gateway.post(EDITS, headers=DRY, json={**BASE, "image": PICTURE, name: value}).json()
    assert (plan["mask"], plan["references"]) == (True, 1)


@pytest.mark.parametrize("name", ["images", "image", "image_urls", "input_images", "image_url", "input_image"])
def test_images_have_other_names(gateway: Gateway, name: str) -> None:
    """The images of an edit in JSON are honoured under each of their names."""
    plan = gateway.post(EDITS, headers=DRY, json={**BASE, name: [PICTURE, {"image_url": PICTURE}]}).json()
    assert (plan["mask"], plan["references"]) == (False, 2)


def test_other_names_reach_upstream(gateway: Gateway) -> None:
    """Pictures under other names are sent, and nothing is reported as dropped."""
    answer = gateway.post(EDITS, json={**BASE, "image_urls": [PICTURE], "mask_url": MASK})
    assert answer.status_code == 200, answer.text
    book = gateway.simulator.book()[0]
    assert (book["mask"], book["references"]) == (True, 1)
    assert "x-gateway-dropped-params" not in answer.headers


@pytest.mark.parametrize("name", ["mask", "mask[]", "mask[0]", "mask_url", "mask_image"])
def test_mask_in_form_has_other_names(gateway: Gateway, name: str) -> None:
    """A mask as a form's text is honoured under each of its names."""
    plan = plan_form(gateway, ('name="image"; filename="a.png"', png()), (f'name="{name}"', MASK.encode()))
    assert (plan["mask"], plan["references"]) == (True, 1)


@pytest.mark.parametrize("name", ["image_urls", "image_urls[]", "image_urls[1]", "images[]", "image_url"])
def test_images_in_form_have_other_names(gateway: Gateway, name: str) -> None:
    """The images of an edit as a form's text are honoured under each of their names."""
    names = (name, name.replace("[1]", "[2]"))
    plan = plan_form(gateway, *((f'name="{one}"', PICTURE.encode()) for one in names))
    assert (plan["mask"], plan["references"]) == (False, 2)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"mask": MASK, "mask_url": MASK}, "mask_url"),
        ({"images": [PICTURE], "image_urls": [PICTURE]}, "images"),
        ({"mask_url": [MASK, MASK]}, "mask_url"),
        ({"mask_image": "no picture"}, "mask_image"),
        ({"sise": "1024x1024"}, "sise"),
        ({"mask_file": MASK}, "mask_file"),
        ({"msak": MASK}, "msak"),
        ({"num_images": 4}, "num_images"),
        ({"image_size": "1536x1024"}, "image_size"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_ambiguous_name_is_refused(gateway: Gateway, fields: dict[str, Any], param: str) -> None:
    """One picture under two names, and a name that is nearly a parameter's, are a 400 before anything is sent."""
    message = assert_refused(gateway, edit(gateway, fields), 400, param)
    assert "Did you mean" in message or "not both" in message or "must be" in message


@pytest.mark.parametrize("name", ["mask_url", "mask_image", "image_urls", "input_images", "image_url"])
def test_pictures_of_generation_are_refused(gateway: Gateway, name: str) -> None:
    """A generation with pictures under any name is sent to edits, and never made without them."""
    assert "/v1/images/edits" in assert_refused(gateway, gateway.generate(**{name: PICTURE}), 400, name)


@pytest.mark.parametrize("value", [None, ""], ids=["null", "empty"])
def test_empty_field_is_absent(gateway: Gateway, value: Any) -> None:
    """An empty JSON field counts as absent, whatever its type; an unknown one is not even reported."""
    names = (
        "n",
        "size",
        "quality",
        "stream",
        "output_compression",
        "user",
        "mask",
        "mask_url",
        "images",
        "seed",
        "svg",
    )
    answer = edit(gateway, dict.fromkeys(names, value))
    assert answer.status_code == 200, answer.text
    assert gateway.simulator.book()[0]["mask"] is False
    assert "x-gateway-dropped-params" not in answer.headers


EMPTY_PARTS = {
    "file that nobody chose": 'name="mask"; filename=""',
    "text": 'name="mask"',
    "second image": 'name="image"; filename=""',
    "mask in brackets": 'name="mask[]"; filename=""',
    "quality": 'name="quality"',
    "unknown file": 'name="attachment"; filename=""',
}


@pytest.mark.parametrize("head", EMPTY_PARTS.values(), ids=EMPTY_PARTS)
def test_empty_part_is_absent(gateway: Gateway, head: str) -> None:
    """An empty part of a form counts as absent, and so does a file that nobody chose."""
    plan = plan_form(gateway, ('name="image"; filename="a"', png()), (head, b""))
    assert (plan["mask"], plan["references"]) == (False, 1)


def test_chosen_file_without_bytes_is_refused(gateway: Gateway) -> None:
    """A file with a name and no bytes was meant to be sent: without it another picture would be made."""
    files = {"image": png(), "mask": ("mask.png", b"", "image/png")}
    assert "zero bytes" in assert_refused(gateway, gateway.edit(files), 400, "mask")


@pytest.mark.parametrize("name", ["tags[]", "tags", "tags[0]"])
def test_unknown_list_is_dropped(gateway: Gateway, name: str) -> None:
    """An unknown field that comes several times is dropped and reported once."""
    answer = gateway.edit([("image", ("a", png())), *((name, (None, text)) for text in ("a", "", "b"))])
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gateway-dropped-params"] == name


@pytest.mark.parametrize("name", ["n", "size", "prompt"])
def test_known_field_comes_once(gateway: Gateway, name: str) -> None:
    """A parameter that comes several times is refused: no value of it counts more than the others."""
    parts = [("image", ("a", png())), (name, (None, "1")), (name, (None, "2"))]
    body = {"prompt": "a cat"} if name != "prompt" else {}
    assert_refused(gateway, gateway.post(EDITS, files=parts, data=body), 400, name)


def test_number_of_fields_is_bounded(gateway: Gateway) -> None:
    """A body of thousands of names is refused before each of them is compared."""
    fields = {f"field{number}": 1 for number in range(4001)}
    assert "4,000 fields" in assert_refused(gateway, gateway.generate(**fields), 400, None)


@pytest.mark.parametrize("prompt", [" ", "\n\n", "\u3000", "\u200b"], ids=ascii)
def test_blank_prompt_is_refused(gateway: Gateway, prompt: str) -> None:
    """A prompt that shows nothing is a 400 in JSON and in a form, and buys nothing."""
    assert_refused(gateway, gateway.generate(prompt=prompt), 400, "prompt")
    answer = gateway.post(EDITS, data={"prompt": prompt}, files={"image": png()})
    assert error_of(answer)["param"] == "prompt"
    assert json.loads(answer.text)["error"]["code"] == "missing_required_parameter"
