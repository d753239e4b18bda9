"""Names that are nearly a parameter's: each means that parameter, and no plain other word does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UnknownParameter
from gateway.jobs.near_names import find_meant
from gateway.jobs.parameter_table import PARAMETERS, PICTURE_NAMES
from gateway.jobs.parameters import read_params

LONG_NAMES = sorted(name for name, one in PARAMETERS.items() if len(name) >= 4 and one.use != "refused")

MEANT = {
    "sise": "size",
    "szie": "size",
    "siz": "size",
    "sizes": "size",
    "Size": "size",
    "image_size": "size",
    "imageSize": "size",
    "width": "size",
    "height": "size",
    "num_images": "n",
    "numberOfImages": "n",
    "batch_size": "n",
    "N": "n",
    "promt": "prompt",
    "PROMPT": "prompt",
    "qualtiy": "quality",
    "outputFormat": "output_format",
    "output-format": "output_format",
    "format": "output_format",
    "compression": "output_compression",
    "aspectRatio": "aspect_ratio",
    "ratio": "aspect_ratio",
    "transparent": "background",
    "back_ground": "background",
    "maks": "mask",
    "mask_file": "mask",
    "mask_base64": "mask",
    "Mask": "mask",
    "image1": "image",
    "image_1": "image",
    "imgae": "image",
    "reference_images": "images",
    "init_image": "images",
    "imageUrls": "images",
    "steam": "stream",
    "responseFormat": "response_format",
    "user[]": "user",
}

OTHERS = [
    *("seed", "negative_prompt", "steps", "cfg_scale", "guidance_scale", "sampler", "metadata", "extra_body", "store"),
    *("logprobs", "temperature", "k", "a", "", "nn", "_", "[]", "watermark", "tags", "tags[]", "timeout", "webhook"),
    *("x" * 100, "sïze" * 20, "日本語", "sizesize", "promptly"),
]


@pytest.mark.parametrize("name", MEANT)
def test_near_name_is_found(name: str) -> None:
    """A known other word, another spelling, or a name one edit away means a parameter, and is refused with its name."""
    assert find_meant(name) == MEANT[name]
    with pytest.raises(UnknownParameter, match="Did you mean") as caught:
        read_params({"prompt": "a cat", name: "x"}, "edit", is_text=False, refuse_unknown=False)
    assert caught.value.param == name
    assert f"`{MEANT[name]}`" in caught.value.message


@pytest.mark.parametrize("name", OTHERS, ids=ascii)
def test_other_word_means_nothing(name: str) -> None:
    """A field that is no near miss is dropped and reported, as before."""
    assert find_meant(name) is None
    params = read_params({"prompt": "a cat", name: "x"}, "edit", is_text=False, refuse_unknown=False)
    assert params.job.dropped == (name,)


def edits(name: str) -> st.SearchStrategy[str]:
    """Texts one edit away from a name."""
    letter = st.sampled_from("abcdefghijklmnopqrstuvwxyz")
    place = st.integers(0, len(name) - 1)
    return st.one_of(
        st.builds(lambda at: name[:at] + name[at + 1 :], place),
        st.builds(lambda at, new: name[:at] + new + name[at:], place, letter),
        st.builds(lambda at, new: name[:at] + new + name[at + 1 :], place, letter),
        st.builds(lambda at: name[:at] + name[at + 1 : at + 2] + name[at] + name[at + 2 :], place),
    )


@given(wrong=st.sampled_from(LONG_NAMES).flatmap(lambda name: st.tuples(st.just(name), edits(name))))
def test_every_single_edit_is_found(wrong: tuple[str, str]) -> None:
    """One letter added, dropped, changed or swapped in a name of four or more is a near miss, or a name itself."""
    name, typed = wrong
    found = find_meant(typed)
    assert found is not None
    # Two names may be as near: `images` is one edit from `image`, and both from `imagse`.
    assert found == name or typed in PARAMETERS or typed in PICTURE_NAMES or {found, name} <= {"image", "images"}
