"""The parameters of an image request as a table: type, values, range, default, and the other names of each.

`parameters` checks requests by it, and the OpenAPI document shows it. It holds facts alone and reads no request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.jobs.job import TIERS

MAX_PROMPT = 32_000
MAX_N = 10
MAX_FIELDS = 4_000
"""The most fields of one request. Each unknown one takes some microseconds of the event loop."""

Kind = Literal["text", "choice", "integer", "boolean", "pictures"]
Use = Literal["served", "passed", "reported", "refused"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a request.

    `most` is the longest text in characters, or with `least` the range of an integer. `pattern` is a regular expression
    for documents: a text that does not match it is refused. `default` is the value that an absent parameter stands for,
    None where another source decides. A parameter of the `use` `served` has a meaning of its own; a `passed` one goes
    to the upstreams whose profile has it; a `reported` one is checked, and no upstream receives it; a `refused` one
    belongs to other models. `changes_picture` makes a passed parameter hard: an upstream without it is a compromise.
    `is_for_edits` means that generations refuse it.
    """

    kind: Kind
    about: str
    values: tuple[str, ...] = ()
    least: int = 0
    most: int = 0
    pattern: str = ""
    default: str | int | bool | None = None
    hint: str = ""
    use: Use = "served"
    changes_picture: bool = False
    ignores_case: bool = False
    is_required: bool = False
    is_for_edits: bool = False


_SIZE = r"auto|\s*[1-9][0-9]{0,5}[xX][1-9][0-9]{0,5}\s*|\s*[1-9][0-9]{0,3}:[1-9][0-9]{0,3}\s*"
_RATIO = r"auto|\s*[1-9][0-9]{0,3}:[1-9][0-9]{0,3}\s*"

PARAMETERS: Mapping[str, Parameter] = {
    "prompt": Parameter(
        "text",
        "The text that the image should show.",
        most=MAX_PROMPT,
        pattern=r"^[^\u0000]*[^\s\u0000][^\u0000]*$",
        is_required=True,
    ),
    "model": Parameter("text", "A name from `GET /v1/models`. Default: the gateway's `default_model`.", most=200),
    "n": Parameter("integer", "The number of images.", least=1, most=MAX_N, default=1),
    "size": Parameter(
        "text",
        "`auto`, WIDTHxHEIGHT or a ratio such as 16:9. Both edges are multiples of 16 and at most 3840 pixels, the "
        "long edge is at most 3 times the short one, and the area is 655,360 to 8,294,400 pixels. An alias may serve "
        "other sizes too.",
        most=32,
        pattern=f"^({_SIZE})$",
        default="auto",
    ),
    "resolution": Parameter(
        "choice",
        "The tier of a ratio: a long edge of 1536 (a square: 1024), 2048 or 3840 pixels. Not with a WIDTHxHEIGHT size.",
        values=tuple(TIERS),
        ignores_case=True,
    ),
    "aspect_ratio": Parameter(
        "text", "The ratio, or `auto`. Not with a WIDTHxHEIGHT size.", most=32, pattern=f"^({_RATIO})$"
    ),
    "quality": Parameter(
        "choice",
        "The quality; `standard` is another name of `medium`, and `hd` of `high`.",
        values=("low", "medium", "high", "standard", "hd", "auto"),
        default="auto",
        hint="`standard` means medium, and `hd` means high.",
    ),
    "output_format": Parameter("choice", "The format of the image.", values=("png", "jpeg", "webp"), default="png"),
    "output_compression": Parameter(
        "integer", "The quality of a JPEG or WebP in percent. A PNG has none.", least=0, most=100
    ),
    "background": Parameter(
        "choice",
        "The background; `transparent` needs png or webp.",
        values=("auto", "opaque", "transparent"),
        default="auto",
    ),
    "moderation": Parameter(
        "choice", "The strictness of the upstream's filter.", values=("auto", "low"), default="auto", use="passed"
    ),
    "response_format": Parameter(
        "choice",
        "Bytes in base64, or a link. Default: `b64_json`, or the alias's. A stream's events always hold the bytes.",
        values=("b64_json", "url"),
    ),
    "stream": Parameter("boolean", "True: the answer is a stream of events.", default=False),
    "partial_images": Parameter(
        "integer", "Partial images of a stream. Fewer may arrive; this gateway sends none.", least=0, most=3, default=0
    ),
    "user": Parameter("text", "The caller's own user, recorded with the task.", most=512),
    "safety_identifier": Parameter("text", "The same; it comes before `user`.", most=512),
    "input_fidelity": Parameter("choice", "No upstream receives it.", values=("high", "low"), use="reported"),
    "style": Parameter("choice", "No upstream receives it.", values=("vivid", "natural"), use="reported"),
    "callback_url": Parameter(
        "text", "No upstream receives it; see the header X-Gateway-Webhook.", most=4096, use="reported"
    ),
    "image": Parameter("pictures", "The images to edit, or one of them.", is_for_edits=True),
    "images": Parameter("pictures", "The same; not together with `image`.", is_for_edits=True),
    "mask": Parameter(
        "pictures",
        "A PNG or WebP of the first image's size; the image is edited where the mask is transparent.",
        is_for_edits=True,
    ),
    "complexity": Parameter("text", "A parameter of other models.", use="refused"),
    "svg": Parameter("text", "A parameter of other models.", use="refused"),
    "markup": Parameter("text", "A parameter of other models.", use="refused"),
    "frame_*": Parameter("text", "Parameters of other models.", use="refused"),
}
"""Every parameter by its name; `frame_*` stands for all names that begin so. Values are checked in this order."""

PICTURE_NAMES: Mapping[str, str] = {
    "image": "image",
    "images": "images",
    "image_url": "images",
    "image_urls": "images",
    "input_image": "images",
    "input_images": "images",
    "mask": "mask",
    "mask_url": "mask",
    "mask_image": "mask",
}
"""Names under which pictures are taken, without brackets, and the parameter that each stands for."""
