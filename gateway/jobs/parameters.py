"""The parameters of OpenAI's Images API: checked strictly, and turned into an ImageJob.

An error states the fault, the field if there is one, and mostly a right value.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from gateway import errors
from gateway.jobs.job import (
    MAX_RATIO,
    Background,
    Format,
    ImageJob,
    Operation,
    Passed,
    Quality,
    Shape,
    Size,
    find_fault,
    make_shape,
    nearest_legal,
    parse_ratio,
    parse_size,
)
from gateway.jobs.near_names import find_meant
from gateway.jobs.parameter_table import MAX_FIELDS, PARAMETERS, PICTURE_NAMES, Parameter
from gateway.pictures.picture import Picture

_QUALITIES = {"low": "low", "medium": "medium", "high": "high", "standard": "medium", "hd": "high", "auto": None}

_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""Unicode's categories of characters that show nothing."""


_INTEGER = re.compile(r"-?[0-9]{1,18}")

ScaledSizes = Callable[[str | None], Collection[Size]]
"""Returns the sizes that the gateway serves by scaling for a public model name; None is the default model."""


@dataclass(frozen=True, slots=True)
class Params:
    """A request's parameters, checked: its job without pictures, and the rest. None is absent.

    `tier` is the requested resolution, None without one.
    """

    job: ImageJob
    model: str | None
    tier: str | None
    response_format: Literal["b64_json", "url"] | None
    stream: bool
    partial_images: int


def read_params(
    fields: Mapping[str, Any],
    operation: Operation,
    *,
    is_text: bool,
    refuse_unknown: bool,
    scaled_sizes: ScaledSizes = lambda model: (),
) -> Params:
    """Check every field. `is_text` means that values are multipart text.

    `refuse_unknown` refuses unknown fields in place of dropping them. Raises PublicError (400) at the first fault.
    """
    if len(fields) > MAX_FIELDS:
        raise errors.InvalidValue(f"A request may have at most {MAX_FIELDS:,} fields; it has {len(fields):,}.")
    given: dict[str, Any] = {}
    for name, parameter in PARAMETERS.items():
        # A picture is no value, and other models' parameters are refused below.
        if parameter.kind != "pictures" and parameter.use != "refused":
            given[name] = _read(fields[name], name, parameter, is_text) if name in fields else None
    prompt = given["prompt"]
    if prompt is None or is_blank(prompt):
        fault = "required" if prompt is None else "blank"
        raise errors.MissingParameter(f"`prompt` is {fault}: say what the image should show.", param="prompt")
    scaled = scaled_sizes(given["model"])
    size, tier = _read_size(given, scaled)
    scaled_to = size if isinstance(size, Size) and size in scaled else None
    if scaled_to is not None and find_fault(scaled_to):
        size = nearest_legal(scaled_to.width, scaled_to.height)
    output_format, compression = given["output_format"] or "png", given["output_compression"]
    background = given["background"] or "auto"
    if background == "transparent" and output_format == "jpeg":
        raise errors.InvalidValue(
            "`background: transparent` needs `output_format` png or webp; jpeg has no transparency.", param="background"
        )
    job = ImageJob(
        operation=operation,
        prompt=prompt,
        n=given["n"] or 1,
        size=size,
        scaled_to=scaled_to,
        quality=cast("Quality | None", _QUALITIES[given["quality"] or "auto"]),
        background=cast("Background", background),
        output_format=cast("Format", output_format),
        output_compression=compression if output_format != "png" else None,
        passed=_find_passed(given),
        end_user=given["safety_identifier"] or given["user"],
        explicit=frozenset([name for name, value in fields.items() if not is_absent(value)]),
        dropped=_find_dropped(fields, given, operation, refuse_unknown),
    )
    return Params(
        job=job,
        model=given["model"],
        tier=tier,
        response_format=cast("Literal['b64_json', 'url'] | None", given["response_format"]),
        stream=given["stream"] or False,
        partial_images=given["partial_images"] or 0,
    )


def is_absent(value: object) -> bool:
    """True for null and for the empty text, which count as absent for every parameter."""
    return value is None or value == ""


def is_blank(text: str) -> bool:
    """True when a text has no character that shows anything."""
    return all(unicodedata.category(char) in _INVISIBLE for char in text)


def make_job(params: Params, references: tuple[Picture, ...], mask: Picture | None) -> ImageJob:
    """Make the job of checked parameters and pictures. A tier without a size gets the first image's shape, or 1:1."""
    size = params.job.size
    if size is None and params.tier is not None:
        # A tier alone keeps the shape of the first image, or makes a square.
        wide, high = (references[0].width, references[0].height) if references else (1, 1)
        if max(wide, high) > MAX_RATIO * min(wide, high):
            wide, high = (MAX_RATIO, 1) if wide > high else (1, MAX_RATIO)
        size = make_shape(wide, high, params.tier)
    job = params.job
    is_same = size is job.size and not references and mask is None
    return job if is_same else replace(job, size=size, references=references, mask=mask)


def _read_size(given: Mapping[str, Any], scaled: Collection[Size]) -> tuple[Size | Shape | None, str | None]:
    """The requested size, None for `auto`, and the requested tier, None without one. Raises InvalidValue."""
    text, tier, ratio_text = given["size"], given["resolution"], given["aspect_ratio"]
    ratio = _read_ratio("aspect_ratio", ratio_text) if ratio_text and ratio_text != "auto" else None
    if text and text != "auto":
        if ratio_in_size := parse_ratio(text):
            if ratio is not None:
                raise errors.InvalidValue(
                    "`size` is a ratio already; leave `aspect_ratio` out, or give `size` as WIDTHxHEIGHT.", param="size"
                )
            ratio = _check_ratio("size", text, ratio_in_size)
        else:
            return _read_pixels(text, scaled, has_other=bool(tier or ratio)), None
    if ratio is not None:
        return make_shape(*ratio, tier or "1K"), tier
    return None, tier


def _read_pixels(text: str, scaled: Collection[Size], *, has_other: bool) -> Size:
    size = parse_size(text)
    if size is None:
        raise errors.InvalidValue(
            f"`size` must be `auto`, WIDTHxHEIGHT such as 1024x1024, or a ratio such as 16:9; not {text!r}.",
            param="size",
        )
    if has_other:
        raise errors.InvalidValue(
            "`resolution` and `aspect_ratio` cannot come with a WIDTHxHEIGHT `size`; give one or the other.",
            param="size",
        )
    if size not in scaled and (fault := find_fault(size)):
        raise errors.InvalidValue(f"`size` {text} is not possible: {fault}.", param="size")
    return size


def _read_ratio(name: str, text: str) -> tuple[int, int]:
    ratio = parse_ratio(text)
    if ratio is None:
        raise errors.InvalidValue(f"`{name}` must be a ratio such as 16:9; not {text!r}.", param=name)
    return _check_ratio(name, text, ratio)


def _check_ratio(name: str, text: str, ratio: tuple[int, int]) -> tuple[int, int]:
    if max(ratio) > MAX_RATIO * min(ratio):
        raise errors.InvalidValue(f"`{name}` may be at most {MAX_RATIO}:1 either way; not {text}.", param=name)
    return ratio


def _find_passed(given: Mapping[str, Any]) -> tuple[Passed, ...]:
    """The values to pass on. One that equals its default says the same as its absence, and is not passed."""
    return tuple(
        [
            Passed(name, value, PARAMETERS[name].changes_picture)
            for name, value in given.items()
            if value is not None and PARAMETERS[name].use == "passed" and value != PARAMETERS[name].default
        ]
    )


def _find_dropped(
    fields: Mapping[str, Any], given: Mapping[str, Any], operation: Operation, refuse_unknown: bool
) -> tuple[str, ...]:
    """The valid parameters that no upstream takes, and the unknown ones. Raises UnknownParameter."""
    dropped = [name for name, value in given.items() if value is not None and PARAMETERS[name].use == "reported"]
    if given["output_format"] in (None, "png") and given["output_compression"] not in (None, 100):
        dropped.append("output_compression")
    for name, value in fields.items():
        if name in given or is_absent(value):
            continue
        if name in PICTURE_NAMES:
            if operation == "generation":
                raise errors.UnknownParameter(f"`{name}` belongs to edits: send it to /v1/images/edits.", param=name)
            continue
        _check_unknown(name[:100], refuse_unknown)
        dropped.append(name)
    return tuple(dropped)


def _check_unknown(name: str, refuse_unknown: bool) -> None:
    """Raise UnknownParameter unless the field may be dropped: to ignore it would give no other picture."""
    if name.startswith("frame_") or (name in PARAMETERS and PARAMETERS[name].use == "refused"):
        raise errors.UnknownParameter(f"`{name}` is a parameter of other models.", param=name)
    if meant := find_meant(name):
        raise errors.UnknownParameter(f"There is no parameter `{name}`. Did you mean `{meant}`?", param=name)
    if refuse_unknown:
        raise errors.UnknownParameter(f"There is no parameter `{name}`.", param=name)


def _read(value: Any, name: str, parameter: Parameter, is_text: bool) -> Any:
    """The value of one parameter by its row of the table; None where it is absent. Raises InvalidValue."""
    if is_absent(value):
        return None
    if parameter.kind == "text":
        return _read_text(name, value, parameter)
    if parameter.kind == "choice":
        return _read_choice(name, value, parameter)
    if parameter.kind == "integer":
        return _read_integer(name, value, parameter, is_text)
    return _read_boolean(name, value, is_text)


def _read_text(name: str, value: Any, parameter: Parameter) -> str:
    if not isinstance(value, str):
        raise errors.InvalidValue(f"`{name}` must be a string, not {_kind(value)}.", param=name)
    if len(value) > parameter.most:
        raise errors.InvalidValue(
            f"`{name}` may have at most {parameter.most:,} characters; it has {len(value):,}.", param=name
        )
    if "\x00" in value:
        raise errors.InvalidValue(f"`{name}` must not hold NUL characters.", param=name)
    return value


def _read_choice(name: str, value: Any, parameter: Parameter) -> str:
    if isinstance(value, str) and parameter.ignores_case:
        value = value.upper()
    if not isinstance(value, str) or value not in parameter.values:
        shown = repr(value)[:60] if isinstance(value, str) else _kind(value)
        raise errors.InvalidValue(
            f"`{name}` must be one of {', '.join(parameter.values)}; not {shown}. {parameter.hint}".strip(), param=name
        )
    return value


def _read_integer(name: str, value: Any, parameter: Parameter, is_text: bool) -> int:
    number = _as_integer(value, is_text)
    if number is None or not parameter.least <= number <= parameter.most:
        shown: Any = _kind(value)
        if is_text or isinstance(value, float):
            shown = repr(value)[:60]
        elif number is not None and abs(number) < 10**18:
            shown = number
        raise errors.InvalidValue(
            f"`{name}` must be an integer from {parameter.least} to {parameter.most}; not {shown}.", param=name
        )
    return number


def _read_boolean(name: str, value: Any, is_text: bool) -> bool:
    if isinstance(value, bool):
        return value
    if is_text and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    shown = repr(value)[:60] if isinstance(value, str) else _kind(value)
    raise errors.InvalidValue(f"`{name}` must be true or false; not {shown}.", param=name)


def _as_integer(value: Any, is_text: bool) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if is_text and isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    return None


_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "an object"}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a picture")
