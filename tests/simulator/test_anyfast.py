"""The stand-in Anyfast holds a request to its pages, field by field."""

import base64
import io

import pytest
from PIL import Image


def _decode(item):
    return Image.open(io.BytesIO(base64.b64decode(item["b64_json"])))


def test_generation_answers_asked_size(hand):
    """A picture has the size and format that were asked for, in base64."""
    answer = hand.generate(size="1536x1024", output_format="jpeg", output_compression=40, n=2)
    assert answer.status_code == 200
    body = answer.json()
    assert [(_decode(item).format, _decode(item).size) for item in body["data"]] == [
        ("JPEG", (1536, 1024)),
        ("JPEG", (1536, 1024)),
    ]
    assert body["usage"]["output_tokens"] == 2 * 1372
    assert isinstance(body["created"], int)


def test_two_pictures_differ(hand):
    """The pictures of one answer are not the same picture twice."""
    first, second = hand.generate(n=2).json()["data"]
    assert first["b64_json"] != second["b64_json"]


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("gpt-image-2", {"response_format": "b64_json"}),
        ("gpt-image-2", {"background": "opaque"}),
        ("gpt-image-2", {"style": "vivid"}),
        ("gpt-image-2", {"user": "someone"}),
        ("gpt-image-2", {"stream": False}),
        ("gpt-image-2", {"partial_images": 0}),
        ("gpt-image-2", {"resolution": "1K"}),
        ("gpt-image-2-c", {"n": 1}),
    ],
)
def test_undocumented_field_refused(hand, model, fields):
    """A field no page documents is refused and written down."""
    answer = hand.generate(model, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"].keys() == {"message", "type", "code"}
    assert hand.log()[-1]["undocumented"] == list(fields)
    assert hand.book() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "auto"},
        {"size": "16:9"},
        {"size": "1000x1000"},
        {"size": "512x512"},
        {"size": "3856x1024"},
        {"size": "3840x1024"},
        {"size": "3840x2176"},
        {"size": "1024X1024"},
        {"size": None},
        {"quality": "auto"},
        {"quality": "hd"},
        {"output_format": "webp"},
        {"output_compression": 101, "output_format": "jpeg"},
        {"output_compression": 50},
        {"moderation": "none"},
        {"n": 0},
        {"n": 11},
        {"n": "2"},
        {"n": True},
        {"n": 2.0},
        {"n": None},
        {"prompt": ""},
        {"prompt": 7},
        {"model": "dall-e-3"},
    ],
)
def test_undocumented_value_refused(hand, fields):
    """A documented field with a value of no page is refused and written down."""
    answer = hand.generate(**fields)
    assert answer.status_code == 400
    assert set(hand.log()[-1]["refused"]) <= set(fields)
    assert hand.log()[-1]["refused"]
    assert hand.book() == []


def test_c_answers_url_by_default(hand):
    """-c answers a link that needs no key, and base64 when it is asked for."""
    link = hand.generate("gpt-image-2-c").json()["data"][0]["url"]
    assert Image.open(io.BytesIO(hand.client.get(link).content)).size == (1024, 1024)
    assert _decode(hand.generate("gpt-image-2-c", response_format="b64_json").json()["data"][0])


def test_n_and_mask_need_direct(hand):
    """A key outside the Direct group makes one picture and takes no mask."""
    image, mask = hand.draw(), hand.draw(mode="RGBA")
    assert hand.generate(key="sim-basic", n=1).status_code == 200
    assert hand.generate(key="sim-basic", n=2).status_code == 403
    assert hand.edit(("image", image), ("mask", mask), key="sim-basic").status_code == 403
    assert hand.edit(("image", image), ("mask", mask), key="sim-c", model="gpt-image-2-c").status_code == 200
    assert [purchase["key"] for purchase in hand.book()] == ["basic", "c"]


def test_edit_reads_one_or_many(hand):
    """One file goes under image, two to sixteen under image[], and nothing else."""
    image = hand.draw()
    assert hand.edit(("image", image), n="2").status_code == 200
    assert hand.edit(*[("image[]", image)] * 16).status_code == 200
    assert [purchase["references"] for purchase in hand.book()] == [1, 16]
    assert hand.edit(*[("image[]", image)] * 17).status_code == 400
    assert hand.edit(("image[]", image)).status_code == 400
    assert hand.edit(("image", image), ("image", image)).status_code == 400
    assert hand.edit(("image", image), ("image[]", image), ("image[]", image)).status_code == 400
    assert hand.edit(("mask", image)).status_code == 400
    assert len(hand.book()) == 2


@pytest.mark.parametrize("fields", [{"quality": "low"}, {"moderation": "low"}, {"response_format": "url"}])
def test_edit_refuses_generation_fields(hand, fields):
    """What is documented for generations only is refused on edits."""
    assert hand.edit(("image", hand.draw()), **fields).status_code == 400
    assert hand.log()[-1]["undocumented"] == list(fields)


def test_c_edit_refuses_b64_and_n(hand):
    """-c edits answer links only, one picture a request."""
    image = ("image", hand.draw())
    assert hand.edit(image, model="gpt-image-2-c", response_format="b64_json").status_code == 400
    assert hand.edit(image, model="gpt-image-2-c", n="1").status_code == 400
    assert "url" in hand.edit(image, model="gpt-image-2-c", response_format="url").json()["data"][0]


def test_edit_sniffs_bytes(hand):
    """A file is what its bytes are, whatever it was declared as."""
    assert hand.edit(("image", hand.draw("JPEG"))).status_code == 200
    assert hand.edit(("image", hand.draw("WEBP"))).status_code == 400
    assert hand.edit(("image", b"\x89PNG\r\n\x1a\n not a picture")).status_code == 400
    assert hand.log()[0]["files"][0]["format"] == "jpeg"
    assert hand.log()[0]["files"][0]["content_type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("mode", "kind", "size"),
    [
        ("RGB", "PNG", (64, 48)),
        ("RGBA", "PNG", (64, 64)),
        ("RGB", "JPEG", (64, 48)),
        ("RGBA", "WEBP", (64, 48)),
    ],
)
def test_unfit_mask_refused(hand, mode, kind, size):
    """A mask without alpha, of another size or of another format is refused."""
    mask = hand.draw(kind, size, mode)
    answer = hand.edit(("image", hand.draw()), ("mask", mask))
    assert answer.status_code == 400
    assert hand.log()[-1]["refused"] == ["mask"]


def test_masked_part_is_marked(hand):
    """A person sees which part of the picture the mask let be edited."""
    mask = Image.new("RGBA", (64, 48), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (32, 0, 64, 24))
    out = io.BytesIO()
    mask.save(out, "PNG")
    answer = hand.edit(("image", hand.draw()), ("mask", out.getvalue()), size="1536x1024")
    picture = _decode(answer.json()["data"][0])
    assert picture.getpixel((1500, 400)) == (255, 0, 160)
    assert picture.getpixel((1500, 1000)) != (255, 0, 160)


def test_policy_refuses_before_acceptance(hand):
    """A forbidden prompt is refused in Anyfast's words and costs nothing."""
    answer = hand.generate(prompt="some forbidden-content here")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_policy_violation")
    assert hand.book() == []


def test_form_scalar_must_be_digits(hand):
    """On a form a number is its digits, not a sign, a fraction or a word."""
    for value in ("1.0", "+1", " 1", "one", ""):
        assert hand.edit(("image", hand.draw()), n=value).status_code == 400


def test_unknown_path_is_refused(hand):
    """A path or query no page documents is refused in the vendor's shape."""
    assert hand.read("/v1/images/variations", "anyfast").status_code == 404
    assert hand.read("/v1/models?limit=1", "anyfast").status_code == 400
    assert hand.read("/v1/images/generations", "anyfast").json()["error"]["code"] == "not_found"
    assert [seen["undocumented"] for seen in hand.log()] == [
        ["GET /anyfast/v1/images/variations"],
        ["?limit"],
        ["GET /anyfast/v1/images/generations"],
    ]
