"""The Images parameters: accepted, defaulted, refused with the field's name and what would be right."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidValue, MissingParameter, PublicError, UnknownParameter
from gateway.jobs.job import ImageJob, Operation, Passed, Shape, Size
from gateway.jobs.parameters import Params, make_job, read_params
from gateway.pictures.picture import Picture
from gateway.pictures.spool import Blob

PARAMETERS = (
    *("prompt", "model", "n", "size", "quality", "background", "output_format", "output_compression", "moderation"),
    *("response_format", "stream", "partial_images", "input_fidelity", "user", "safety_identifier", "style"),
    *("resolution", "aspect_ratio", "callback_url", "image", "images", "mask", "complexity", "frame_count", "x"),
)
OPTIONAL = tuple(name for name in PARAMETERS if name != "prompt")


def read(
    fields: dict[str, Any], operation: Operation = "generation", *, text: bool = False, strict: bool = False
) -> Params:
    return read_params({"prompt": "a fox"} | fields, operation, is_text=text, refuse_unknown=strict)


def refusal(fields: dict[str, Any], **how: Any) -> PublicError:
    with pytest.raises(PublicError) as caught:
        read(fields, **how)
    assert caught.value.status == 400
    return caught.value


def attempt(fields: dict[str, Any], **how: Any) -> Params | PublicError:
    try:
        return read(fields, **how)
    except PublicError as error:
        return error


def facts_of(params: Params) -> dict[str, Any]:
    """Every value by its name, wherever it is."""
    return {one.name: getattr(part, one.name) for part in (params, params.job) for one in dataclasses.fields(part)}


def picture(width: int, height: int) -> Picture:
    return Picture(Blob(0, data=b""), "png", width, height, 1, has_alpha=False)


def test_prompt_alone_is_enough() -> None:
    """Everything but the prompt has OpenAI's default."""
    job = ImageJob("generation", "a fox", explicit=frozenset({"prompt"}))
    assert read({}) == Params(job, None, None, None, stream=False, partial_images=0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": "x" * 32_000}, {"prompt": "x" * 32_000}),
        ({"model": "gpt-image-2"}, {"model": "gpt-image-2"}),
        ({"n": 10}, {"n": 10}),
        ({"n": 2.0}, {"n": 2}),
        ({"size": "auto"}, {"size": None}),
        ({"size": "1536x1024"}, {"size": Size(1536, 1024)}),
        ({"size": "16:9"}, {"size": Shape(16, 9, "1K")}),
        ({"size": "16:9", "resolution": "4K"}, {"size": Shape(16, 9, "4K")}),
        ({"size": "auto", "aspect_ratio": "3:2"}, {"size": Shape(3, 2, "1K")}),
        ({"aspect_ratio": "42:18", "resolution": "2k"}, {"size": Shape(21, 9, "2K")}),
        ({"aspect_ratio": "auto", "resolution": "2K"}, {"size": None, "tier": "2K"}),
        ({"resolution": "4K"}, {"size": None, "tier": "4K"}),
        ({"quality": "auto"}, {"quality": None}),
        ({"quality": "low"}, {"quality": "low"}),
        ({"quality": "medium"}, {"quality": "medium"}),
        ({"quality": "high"}, {"quality": "high"}),
        ({"quality": "standard"}, {"quality": "medium"}),
        ({"quality": "hd"}, {"quality": "high"}),
        ({"background": "opaque"}, {"background": "opaque"}),
        ({"background": "transparent"}, {"background": "transparent"}),
        ({"background": "transparent", "output_format": "webp"}, {"background": "transparent"}),
        ({"output_format": "jpeg", "output_compression": 0}, {"output_format": "jpeg", "output_compression": 0}),
        ({"output_format": "webp", "output_compression": 100}, {"output_format": "webp", "output_compression": 100}),
        ({"output_compression": 100}, {"output_compression": None, "dropped": ()}),
        ({"output_compression": 0}, {"output_compression": None, "dropped": ("output_compression",)}),
        ({"moderation": "low"}, {"passed": (Passed("moderation", "low"),)}),
        ({"moderation": "auto"}, {"passed": ()}),
        ({"response_format": "url"}, {"response_format": "url"}),
        ({"response_format": "b64_json"}, {"response_format": "b64_json"}),
        ({"stream": True, "partial_images": 3}, {"stream": True, "dropped": ()}),
        ({"user": "u"}, {"end_user": "u", "dropped": ()}),
        ({"safety_identifier": "s", "user": "u"}, {"end_user": "s", "dropped": ()}),
        ({"style": "vivid", "input_fidelity": "high"}, {"dropped": ("input_fidelity", "style")}),
        ({"callback_url": "https://a.example"}, {"dropped": ("callback_url",)}),
        ({"seed": 7, "extra": None}, {"dropped": ("seed",)}),
    ],
    ids=str,
)
def test_valid_values_are_read(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each documented value, legacy ones and the gateway's own extensions reach their place."""
    found = facts_of(read(fields))
    assert {name: found[name] for name in expected} == expected
    assert found["explicit"] == {"prompt"} | {name for name, value in fields.items() if value is not None}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"n": " 3 "}, {"n": 3}),
        ({"stream": "true"}, {"stream": True}),
        ({"stream": "False"}, {"stream": False}),
        ({"output_compression": "0", "output_format": "jpeg"}, {"output_compression": 0}),
        ({"quality": "hd", "size": "1024x1024"}, {"quality": "high", "size": Size(1024, 1024)}),
    ],
    ids=str,
)
def test_multipart_text_is_read(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """In multipart every value is text, and numbers and booleans are read from it."""
    found = facts_of(read(fields, operation="edit", text=True))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("name", OPTIONAL)
def test_null_means_absent(name: str) -> None:
    """The Python SDK sends null for what was not given."""
    assert read({name: None}, strict=True) == read({})


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("name", OPTIONAL)
def test_empty_means_absent(name: str, text: bool) -> None:
    """A form sends its empty fields too, and some clients the empty strings of theirs; JSON and forms have one rule."""
    assert read({name: ""}, text=text, strict=True) == read({})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": "x" * 32_001}, "at most 32,000 characters"),
        ({"prompt": "a\x00b"}, "NUL"),
        ({"prompt": ["a fox"]}, "must be a string, not an array"),
        ({"model": 5}, "must be a string, not a number"),
        ({"model": "m" * 201}, "at most 200"),
        ({"n": 0}, "an integer from 1 to 10; not 0"),
        ({"n": 11}, "from 1 to 10; not 11"),
        ({"n": -1}, "from 1 to 10"),
        ({"n": 1.5}, "not 1.5"),
        ({"n": 1e300}, "not 1e+300"),
        ({"n": 10**4000}, "not a number"),
        ({"n": True}, "not a boolean"),
        ({"n": "2"}, "not a string"),
        ({"n": {"a": 1}}, "not an object"),
        ({"size": "1000x1000"}, "multiples of 16"),
        ({"size": "512x512"}, "655,360"),
        ({"size": "large"}, "WIDTHxHEIGHT"),
        ({"size": 1024}, "must be a string"),
        ({"size": "4:1"}, "at most 3:1"),
        ({"size": "1024x1024", "resolution": "2K"}, "cannot come with"),
        ({"size": "1024x1024", "aspect_ratio": "1:1"}, "cannot come with"),
        ({"size": "16:9", "aspect_ratio": "16:9"}, "leave `aspect_ratio` out"),
        ({"resolution": "8K"}, "one of 1K, 2K, 4K"),
        ({"aspect_ratio": "wide"}, "such as 16:9"),
        ({"aspect_ratio": "1:4"}, "at most 3:1"),
        ({"quality": "xhigh"}, "low, medium, high"),
        ({"quality": "max"}, "`hd` means high"),
        ({"stream": "Yes"}, "true or false; not 'Yes'"),
        ({"background": "white"}, "auto, opaque, transparent"),
        ({"background": "transparent", "output_format": "jpeg"}, "png or webp"),
        ({"output_format": "gif"}, "png, jpeg, webp"),
        ({"output_format": "svg"}, "png, jpeg, webp"),
        ({"output_format": "jpg"}, "png, jpeg, webp"),
        ({"output_compression": 101}, "from 0 to 100"),
        ({"output_compression": -1}, "from 0 to 100"),
        ({"moderation": "high"}, "auto, low"),
        ({"response_format": "base64"}, "b64_json, url"),
        ({"stream": "true"}, "true or false"),
        ({"stream": 1}, "true or false"),
        ({"partial_images": 4}, "from 0 to 3"),
        ({"input_fidelity": "medium"}, "high, low"),
        ({"style": "noir"}, "vivid, natural"),
        ({"user": "u" * 513}, "at most 512"),
        ({"user": 7, "safety_identifier": "s"}, "must be a string"),
        ({"safety_identifier": []}, "must be a string"),
        ({"callback_url": 1}, "must be a string"),
        ({"quality": Blob(1, data=b"x")}, "not a picture"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_values_name_what_is_right(fields: dict[str, Any], says: str) -> None:
    """A refusal names the field and what would be right."""
    error = refusal(fields)
    assert isinstance(error, InvalidValue)
    assert error.param in fields
    assert f"`{error.param}" in error.message
    assert says in error.message
    assert len(error.message) < 300


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", "--5"), ("n", "+5"), ("n", "5.0"), ("n", "0" * 19 + "10000"), ("n", "٣"), ("n", "-"), ("stream", "yes")],
)
def test_odd_multipart_numbers_are_refused(name: str, value: str) -> None:
    """Text that is nearly a number is a 400, and is never read as another number."""
    assert refusal({name: value}, text=True).param == name


BLANK = [None, "", " ", "\n\t \r", "\u00a0\u3000\u2003", "\u200b\ufeff\u2060", "\x1f", "\u2028\u202e", " " * 32_000]


@pytest.mark.parametrize("prompt", BLANK, ids=ascii)
def test_blank_prompt_is_refused(prompt: str | None) -> None:
    """A request whose prompt shows nothing says so, whatever the nothing is made of."""
    error = refusal({"prompt": prompt})
    assert isinstance(error, MissingParameter)
    assert error.param == "prompt"
    assert error.message.startswith("`prompt` is blank" if prompt else "`prompt` is required")


@pytest.mark.parametrize("name", ["complexity", "svg", "markup", "frame_count", "frame_rate"])
def test_other_models_parameters_are_refused(name: str) -> None:
    """What would change the picture if it were ignored is refused, strict or not."""
    error = refusal({name: 1})
    assert isinstance(error, UnknownParameter)
    assert error.param == name


@pytest.mark.parametrize("name", ["image", "images", "mask"])
def test_pictures_belong_to_edits(name: str) -> None:
    """Pictures on generations are refused, with the route they belong to; on edits they are no parameters."""
    error = refusal({name: True})
    assert isinstance(error, UnknownParameter)
    assert (error.param, "/v1/images/edits" in error.message) == (name, True)
    assert read({name: True}, operation="edit", strict=True).job.dropped == ()


def test_strict_mode_refuses_unknown_fields() -> None:
    """An unknown field is dropped and told, or a 400 where the catalogue says so."""
    assert read({"seed": 7}).job.dropped == ("seed",)
    error = refusal({"seed": 7}, strict=True)
    assert isinstance(error, UnknownParameter)
    assert error.param == "seed"


def test_long_names_are_cut() -> None:
    """A field's name is echoed, but never at any length."""
    for name in ("y" * 5000, "frame_" * 900):
        assert len(refusal({name: 1}, strict=True).message) < 200


@pytest.mark.parametrize(
    ("tier", "first", "size"),
    [
        ("2K", None, Shape(1, 1, "2K")),
        ("1K", (1920, 1080), Shape(16, 9, "1K")),
        ("4K", (100, 1000), Shape(1, 3, "4K")),
        ("4K", (1000, 100), Shape(3, 1, "4K")),
    ],
)
def test_tier_alone_keeps_first_shape(tier: str, first: tuple[int, int] | None, size: Shape) -> None:
    """A resolution without a ratio takes the first image's, within 3:1, or is a square."""
    references = (picture(*first), picture(64, 999)) if first else ()
    params = read({"resolution": tier}, operation="edit" if first else "generation")
    assert make_job(params, references, None).size == size


def test_job_carries_every_parameter() -> None:
    """What the caller asked for is what the job says."""
    fields = {"n": 3, "quality": "low", "output_format": "webp", "output_compression": 5, "moderation": "low"}
    params = read(fields | {"user": "u", "size": "1024x1536", "background": "opaque"}, operation="edit")
    job = make_job(params, (picture(8, 8),), picture(8, 8))
    assert job == dataclasses.replace(params.job, references=job.references, mask=job.mask)
    assert (len(job.references), job.mask is not None) == (1, True)
    assert "a fox" not in repr(job)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
WORDS = st.sampled_from(
    ["auto", "1024x1024", "16:9", "2K", "low", "png", "jpeg", "transparent", "url", "true", "3", "--5", "٣", "-", "0x0"]
)


@given(
    fields=st.dictionaries(st.sampled_from(PARAMETERS) | st.text(), JSON | WORDS, max_size=6),
    operation=st.sampled_from(["generation", "edit"]),
    text=st.booleans(),
    strict=st.booleans(),
)
def test_any_value_is_read_or_refused(fields: dict[str, Any], operation: Operation, text: bool, strict: bool) -> None:
    """Any JSON value in any field: parameters, or a 400 that names a field; never another exception."""
    end = attempt(fields, operation=operation, text=text, strict=strict)
    if isinstance(end, PublicError):
        assert end.status == 400
        assert end.param in {"prompt"} | {name[:100] for name in fields}
    else:
        assert 1 <= end.job.n <= 10
        assert end.job.output_compression is None or end.job.output_format != "png"
        assert not strict or set(end.job.dropped) <= set(PARAMETERS)
