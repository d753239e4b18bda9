"""The parameters of OpenAI's Images API: checked strictly, and turned into an ImageJob.

Each error names the field, the fault and a right value. Nothing below this module knows OpenAI's names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from gateway import errors
from gateway.jobs.job import (
    MAX_RATIO,
    TIERS,
    Background,
    Format,
    ImageJob,
    Operation,
    Quality,
    Shape,
    Size,
    find_fault,
    make_shape,
    parse_ratio,
    parse_size,
)
from gateway.pictures.picture import Picture

MAX_PROMPT = 32_000
MAX_N = 10

_QUALITIES = {"low": "low", "medium": "medium", "high": "high", "standard": "medium", "hd": "high", "auto": None}
_REPORTED = ("input_fidelity", "style", "callback_url")
"""Valid parameters that no upstream takes: dropped, and reported in a header."""

_OTHER_MODELS = ("complexity", "svg", "markup")
"""Parameters of other models. To ignore them would give a different picture, so they are refused."""

_INTEGER = re.compile(r"-?[0-9]{1,18}")

_BODY = frozenset({"image", "images", "mask"})


@dataclass(frozen=True, slots=True)
class Params:
    """A request's parameters, checked, without its pictures. None is `auto` or absent."""

    operation: Operation
    prompt: str
    model: str | None
    n: int
    size: Size | Shape | None
    tier: str | None
    quality: Quality | None
    background: Background
    output_format: Format
    output_compression: int | None
    moderation: Literal["auto", "low"]
    response_format: Literal["b64_json", "url"] | None
    stream: bool
    end_user: str | None
    explicit: frozenset[str]
    dropped: tuple[str, ...]


def read_params(fields: Mapping[str, Any], operation: Operation, *, is_text: bool, refuse_unknown: bool) -> Params:
    """Check every field. `is_text`: values are multipart text. Raises PublicError (400) at the first fault."""
    reader = _Reader(fields, is_text)
    prompt = reader.text("prompt", MAX_PROMPT)
    if not prompt:
        raise errors.MissingParameter("`prompt` is required: say what the image should show.", param="prompt")
    size, tier = _read_size(reader)
    quality = reader.choice("quality", tuple(_QUALITIES), "Qualities of other models are not available.")
    output_format = reader.choice("output_format", ("png", "jpeg", "webp")) or "png"
    compression = reader.integer("output_compression", 0, 100)
    background = reader.choice("background", ("auto", "opaque", "transparent")) or "auto"
    if background == "transparent" and output_format == "jpeg":
        raise errors.InvalidValue(
            "`background: transparent` needs `output_format` png or webp; jpeg has no transparency.", param="background"
        )
    stream = reader.boolean("stream") or False
    reader.integer("partial_images", 0, 3)
    params = Params(
        operation=operation,
        prompt=prompt,
        model=reader.text("model", 200) or None,
        n=reader.integer("n", 1, MAX_N) or 1,
        size=size,
        tier=tier,
        quality=cast("Quality | None", _QUALITIES[quality] if quality else None),
        background=cast("Background", background),
        output_format=cast("Format", output_format),
        output_compression=compression if output_format != "png" else None,
        moderation=cast("Literal['auto', 'low']", reader.choice("moderation", ("auto", "low")) or "auto"),
        response_format=cast(
            "Literal['b64_json', 'url'] | None", reader.choice("response_format", ("b64_json", "url"))
        ),
        stream=stream,
        end_user=reader.text("safety_identifier", 512) or reader.text("user", 512) or None,
        explicit=frozenset(name for name in fields if reader.given(name)),
        dropped=(),
    )
    reader.choice("input_fidelity", ("high", "low"))
    reader.choice("style", ("vivid", "natural"))
    reader.text("callback_url", 4096)
    reader.text("user", 512)
    return _with_dropped(params, reader, refuse_unknown)


def make_job(params: Params, references: tuple[Picture, ...], mask: Picture | None) -> ImageJob:
    """The job of checked parameters and pictures."""
    size = params.size
    if size is None and params.tier is not None:
        # A tier alone keeps the shape of the first image, or makes a square.
        wide, high = (references[0].width, references[0].height) if references else (1, 1)
        if max(wide, high) > MAX_RATIO * min(wide, high):
            wide, high = (MAX_RATIO, 1) if wide > high else (1, MAX_RATIO)
        size = make_shape(wide, high, params.tier)
    return ImageJob(
        operation=params.operation,
        prompt=params.prompt,
        n=params.n,
        size=size,
        quality=params.quality,
        background=params.background,
        output_format=params.output_format,
        output_compression=params.output_compression,
        moderation=params.moderation,
        references=references,
        mask=mask,
        end_user=params.end_user,
        explicit=params.explicit,
        dropped=params.dropped,
    )


def _read_size(reader: _Reader) -> tuple[Size | Shape | None, str | None]:
    """The requested size, and the tier if it came without a ratio."""
    text = reader.text("size", 32)
    tier = reader.choice("resolution", tuple(TIERS), ignore_case=True)
    ratio_text = reader.text("aspect_ratio", 32)
    ratio = _read_ratio("aspect_ratio", ratio_text) if ratio_text and ratio_text != "auto" else None
    if text and text != "auto":
        if ratio_in_size := parse_ratio(text):
            if ratio is not None:
                raise errors.InvalidValue(
                    "`size` is a ratio already; leave `aspect_ratio` out, or give `size` as WIDTHxHEIGHT.", param="size"
                )
            ratio = _check_ratio("size", text, ratio_in_size)
        else:
            return _read_pixels(text, has_other=bool(tier or ratio)), None
    if ratio is not None:
        return make_shape(*ratio, tier or "1K"), tier
    return None, tier


def _read_pixels(text: str, *, has_other: bool) -> Size:
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
    if fault := find_fault(size):
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


def _with_dropped(params: Params, reader: _Reader, refuse_unknown: bool) -> Params:
    dropped = [name for name in _REPORTED if reader.given(name)]
    if params.output_format == "png" and reader.integer("output_compression", 0, 100) not in (None, 100):
        dropped.append("output_compression")
    for name in reader.unread():
        if name in _BODY:
            if params.operation == "generation":
                raise errors.UnknownParameter(f"`{name}` belongs to edits: send it to /v1/images/edits.", param=name)
            continue
        if name in _OTHER_MODELS or name.startswith("frame_"):
            raise errors.UnknownParameter(f"`{name[:100]}` is a parameter of other models.", param=name[:100])
        if refuse_unknown:
            raise errors.UnknownParameter(f"There is no parameter `{name[:100]}`.", param=name[:100])
        dropped.append(name)
    values = {name: getattr(params, name) for name in Params.__slots__}
    return Params(**(values | {"dropped": tuple(dropped)}))


class _Reader:
    """Reads the fields of one request by name and type. Null, and empty multipart text, count as absent."""

    def __init__(self, fields: Mapping[str, Any], is_text: bool) -> None:
        self._fields = fields
        self._is_text = is_text
        self._read: set[str] = set()

    def given(self, name: str) -> bool:
        value = self._fields.get(name)
        return value is not None and not (self._is_text and value == "")

    def unread(self) -> list[str]:
        return [name for name in self._fields if name not in self._read and self.given(name)]

    def text(self, name: str, most: int) -> str | None:
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise errors.InvalidValue(f"`{name}` must be a string, not {_kind(value)}.", param=name)
        if len(value) > most:
            raise errors.InvalidValue(
                f"`{name}` may have at most {most:,} characters; it has {len(value):,}.", param=name
            )
        if "\x00" in value:
            raise errors.InvalidValue(f"`{name}` must not hold NUL characters.", param=name)
        return value

    def choice(self, name: str, values: tuple[str, ...], hint: str = "", *, ignore_case: bool = False) -> str | None:
        value = self._take(name)
        if value is None:
            return None
        if isinstance(value, str) and ignore_case:
            value = value.upper()
        if not isinstance(value, str) or value not in values:
            shown = repr(value)[:60] if isinstance(value, str) else _kind(value)
            raise errors.InvalidValue(
                f"`{name}` must be one of {', '.join(values)}; not {shown}. {hint}".strip(), param=name
            )
        return value

    def integer(self, name: str, least: int, most: int) -> int | None:
        value = self._take(name)
        if value is None:
            return None
        number = _as_integer(value, self._is_text)
        if number is None or not least <= number <= most:
            shown: Any = _kind(value)
            if self._is_text or isinstance(value, float):
                shown = repr(value)[:60]
            elif number is not None and abs(number) < 10**18:
                shown = number
            raise errors.InvalidValue(f"`{name}` must be an integer from {least} to {most}; not {shown}.", param=name)
        return number

    def boolean(self, name: str) -> bool | None:
        value = self._take(name)
        if value is None or isinstance(value, bool):
            return value
        if self._is_text and str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        raise errors.InvalidValue(f"`{name}` must be true or false; not {_kind(value)}.", param=name)

    def _take(self, name: str) -> Any:
        self._read.add(name)
        return self._fields[name] if self.given(name) else None


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
