"""What makes two requests the same, and what does not."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.jobs.job import ImageJob, Operation, Passed, Shape, Size, digest_key, take_fingerprint
from gateway.jobs.parameter_table import PARAMETERS
from gateway.jobs.parameters import make_job, read_params
from gateway.pictures.picture import Picture
from gateway.pictures.spool import Blob


def picture(text: str, folder: Path | None = None) -> Picture:
    """One of these bytes, in memory or in a file."""
    if folder is None:
        return Picture(Blob(len(text), data=text.encode()), "png", 1, 1, 1, has_alpha=False)
    path = folder / text
    path.write_text(text)
    return Picture(Blob(len(text), path=path), "png", 1, 1, 1, has_alpha=False)


JOB = ImageJob("edit", "a cat", references=(picture("a"), picture("b")), mask=picture("c"), end_user="me")

OTHERS: dict[str, Any] = {
    "operation": "generation",
    "prompt": "a cat ",
    "n": 2,
    "size": Size(1024, 1024),
    "quality": "low",
    "background": "opaque",
    "output_format": "jpeg",
    "output_compression": 50,
    "passed": (Passed("moderation", "low"),),
    "references": (picture("b"), picture("a")),
    "mask": picture("d"),
    "end_user": None,
    "dropped": ("style",),
    "scaled_to": Size(512, 512),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_part_counts(name: str) -> None:
    """A job that differs in one part is another one."""
    other = replace(JOB, **{name: OTHERS[name]})
    assert take_fingerprint(other, "m", None) != take_fingerprint(JOB, "m", None)


def test_no_part_is_forgotten() -> None:
    """Each field of a job is a part, but for the list of those that were set, which says nothing more."""
    assert {field.name for field in fields(ImageJob)} == {*OTHERS, "explicit"}


def test_model_and_upstream_count() -> None:
    """Another model, or an upstream that was chosen, is another request."""
    asked = [("m", None), ("other", None), ("m", "anyfast")]
    assert len({take_fingerprint(JOB, model, upstream) for model, upstream in asked}) == 3


def test_passed_names_are_no_other_parts() -> None:
    """A parameter that is passed on is a part under its own name, which no other part has."""
    passed = {name for name, one in PARAMETERS.items() if one.use == "passed"}
    assert not passed & {*OTHERS, "model", "upstream"}


PINNED: list[tuple[Operation, dict[str, Any], str]] = [
    ("generation", {}, "af2109f44cc8851d7a7f588895be1a687d444d853ba60d904c61d5bcb273e385"),
    ("generation", {"moderation": "auto"}, "af2109f44cc8851d7a7f588895be1a687d444d853ba60d904c61d5bcb273e385"),
    (
        "generation",
        {"moderation": "low", "user": "u", "n": 2, "size": "1024x1024", "quality": "high"},
        "d95e69a46e00ea7fbedf52d49c13b81a55b0957ee53b3d5e5797e982f477d828",
    ),
    (
        "edit",
        {
            "moderation": "low",
            "safety_identifier": "s",
            "style": "vivid",
            "output_format": "jpeg",
            "output_compression": 40,
        },
        "e2049a6befa95a37c3cc3a0b327827eb75aaae9d114933f141c127a271c2af86",
    ),
]


@pytest.mark.parametrize(("operation", "fields", "digest"), PINNED)
def test_digest_outlives_an_upgrade(operation: Operation, fields: dict[str, Any], digest: str) -> None:
    """The digests of stored tasks: another one would make a retry across an upgrade buy its picture again."""
    params = read_params({"prompt": "a cat"} | fields, operation, is_text=False, refuse_unknown=False)
    references, mask = ((picture("a"), picture("b")), picture("c")) if operation == "edit" else ((), None)
    assert take_fingerprint(make_job(params, references, mask), "gpt-image-2", None) == digest


def test_bytes_count_wherever_they_are(tmp_path: Path) -> None:
    """A picture is known by its bytes, be they in memory or in a file."""
    stored = replace(JOB, references=(picture("a", tmp_path), picture("b", tmp_path)))
    assert take_fingerprint(stored, "m", None) == take_fingerprint(JOB, "m", None)


def test_sizes_of_other_kinds_differ() -> None:
    """A ratio is not the size in pixels that it may come to."""
    shape, size = Shape(1, 1, "1K"), Size(1024, 1024)
    one, other = (take_fingerprint(replace(JOB, size=each), "m", None) for each in (shape, size))
    assert one != other


def test_keys_are_of_their_route() -> None:
    """One Idempotency-Key on two routes is two keys."""
    assert digest_key("edit", "k") != digest_key("generation", "k") != digest_key("generation", "l")
