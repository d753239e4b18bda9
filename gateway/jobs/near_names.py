"""The parameter that an unknown field's name probably means: another API's word for it, or a slip of the hand."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.jobs.parameter_table import PARAMETERS, PICTURE_NAMES

_OTHER_WORDS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("positive_prompt", "prompt_text", "text_prompt"),
    "model": ("model_name", "model_id"),
    "n": (
        *("num", "num_images", "n_images", "number_of_images", "images_count", "image_count", "max_images", "count"),
        *("num_outputs", "num_samples", "n_samples", "sample_count", "samples", "batch", "batch_size", "batch_count"),
    ),
    "size": (
        *("width", "height", "dimension", "dimensions", "image_size", "img_size", "output_size", "image_width"),
        *("image_height", "image_dimensions", "size_px"),
    ),
    "resolution": ("image_resolution", "output_resolution"),
    "aspect_ratio": ("aspect", "ratio", "image_aspect_ratio", "ar"),
    "quality": ("image_quality", "img_quality", "output_quality", "render_quality"),
    "output_format": (
        *("format", "image_format", "file_format", "file_type", "image_type", "mime_type", "output_mime_type"),
        *("output_type", "output_image_format"),
    ),
    "output_compression": ("compression", "compression_level", "compression_quality", "jpeg_quality", "webp_quality"),
    "background": ("transparent", "transparency", "transparent_background", "background_type", "bg"),
    "images": (
        *("image_file", "image_files", "image_data", "image_base64", "image_b64", "image_list", "image_input", "img"),
        *("imgs", "base_image", "init_image", "init_images", "source_image", "source_images", "src_image", "ref_image"),
        *("ref_images", "reference", "references", "reference_image", "reference_images", "reference_image_url"),
        *("reference_image_urls", "input_image_url", "input_image_urls", "images_url", "images_urls", "picture"),
        *("pictures", "photo", "image_path"),
    ),
    "mask": (
        *("mask_file", "mask_data", "mask_base64", "mask_b64", "mask_image_url", "mask_img", "mask_path"),
        *("alpha_mask", "inpaint_mask", "edit_mask"),
    ),
}
"""Words of other APIs for these parameters. To ignore one would give a different picture."""

_LONGEST_WORD = 32


def find_meant(name: str) -> str | None:
    """The parameter that an unknown name probably means: another word for it, or a name that is one edit away.

    None without one. Only letters and digits count, small as capital. One edit adds, drops or changes a character, or
    swaps two neighbours, of a parameter's own name with at least four characters.
    """
    if len(name) > _LONGEST_WORD:
        return None
    word = _reduce(name)
    if (meant := _WORDS.get(word)) is not None:
        return meant
    return next((_WORDS[near] for near in _NEAR.get(len(word), ()) if _is_one_edit(word, near)), None)


def _reduce(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.lower())


def _is_one_edit(word: str, known: str) -> bool:
    """True for equal words, and when one edit makes one of the other. Their lengths must differ by at most one."""
    shorter = min(len(word), len(known))
    start = next((index for index in range(shorter) if word[index] != known[index]), shorter)
    end = next((index for index in range(shorter - start) if word[-1 - index] != known[-1 - index]), shorter - start)
    left, right = word[start : len(word) - end], known[start : len(known) - end]
    return max(len(left), len(right)) <= 1 or (len(left) == 2 and left == right[::-1])


_KNOWN = [name for name, one in PARAMETERS.items() if one.use != "refused"]
_WORDS = {_reduce(word): known for known, words in _OTHER_WORDS.items() for word in words}
_WORDS |= {_reduce(word): known for word, known in PICTURE_NAMES.items()} | {_reduce(known): known for known in _KNOWN}
_LONG = [_reduce(name) for name in _KNOWN if len(name) >= 4]
_NEAR = {size: [near for near in _LONG if abs(len(near) - size) <= 1] for size in range(_LONGEST_WORD + 1)}
"""For each length of a word, the names of four or more characters whose lengths differ from it by at most one."""
