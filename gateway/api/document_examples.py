"""Examples of requests for the callers' OpenAPI document. Each is a whole body that the gateway serves."""

from __future__ import annotations

from typing import Any

_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAgMAAADXB5lNAAAADFBMVEUoWqDw8PAAAAAAAAAVfvjoAA"
    "AAI0lEQVR42mNgGAWDETAyMDAwhEI5rw8wMDChqxgVGBUYeAAAovsCQnbAFlkAAAAASUVORK5CYII="
)
_MASK = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAQAAAAAYLlVAAAATElEQVR42u3XsQ0AIAwDQYf9d4YNQo"
    "FQmvsFcpKrVHb6Kq+1F1aGAwAAAAAAAAAAAAAYB9T1MTEBAAAAAAAAAAAAAAAAAAAAAADA5w6tTQN9KHZJIwAAAABJRU5ErkJggg"
    "=="
)


def _example(summary: str, **fields: Any) -> dict[str, Any]:
    return {"summary": summary, "value": fields}


GENERATIONS: dict[str, Any] = {
    "prompt": _example("The prompt alone", prompt="a lighthouse in a storm"),
    "sizes": _example(
        "Pixels, quality and format",
        model="gpt-image-2",
        prompt="a lighthouse in a storm",
        n=2,
        size="1536x1024",
        quality="low",
        output_format="webp",
        output_compression=80,
    ),
    "ratio": _example(
        "A ratio, and links in place of bytes",
        prompt="a lighthouse in a storm",
        size="3:2",
        resolution="1K",
        response_format="url",
    ),
    "stream": _example("A stream of events", prompt="a lighthouse in a storm", stream=True, partial_images=1),
}

EDITS: dict[str, Any] = {
    "images": _example(
        "Images by reference", prompt="make it winter", images=[{"image_url": _IMAGE}, {"image_url": _IMAGE}]
    ),
    "mask": _example("One image with a mask", prompt="a hat", image=_IMAGE, mask=_MASK, n=1, quality="auto"),
}

FORMS: dict[str, Any] = {
    "image": _example("One image", prompt="make it winter", image=_IMAGE, size="1024x1024"),
    "images": {
        "summary": "Several images, here as data URLs; a file does as well",
        "value": {"prompt": "make it winter", "image[]": [_IMAGE, _IMAGE], "output_format": "jpeg"},
    },
}
