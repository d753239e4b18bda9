"""The gateway's table of abilities and the stand-in vendors agree: a vendor's page is written down twice, on purpose.

Each ability is asked of the simulator by requests that the gateway does not write, and compared with the Profile.
"""

import dataclasses
import functools
import itertools

import pytest

from gateway.catalogue.vendors import SEVEN, THREE, find_offer
from gateway.jobs.parameter_table import PARAMETERS

CREDENTIALS = {
    ("anyfast", "gpt-image-2", "direct"): "sim-direct",
    ("anyfast", "gpt-image-2", "default"): "sim-basic",
    ("anyfast", "gpt-image-2-c", "direct"): "sim-c",
    ("anyfast", "gpt-image-2-c", "default"): "sim-basic",
    ("apiany", "gpt-image-2", "default"): "sim-apiany",
    ("openai", "gpt-image-2", "default"): "sim-openai",
    ("openai", "gpt-image-1.5", "default"): "sim-openai",
}

HELD_BACK = {"openai": {"backgrounds": ("opaque", "transparent"), "passes_user": True}}
"""What a vendor takes and the gateway leaves to the operator's word."""

NOT_ASKED = {"without_masks"}
"""Words for callers."""


class Vendor:
    """Asks one vendor, with one key, whether it takes something."""

    def __init__(self, hand, kind, model, key):
        self._hand, self._kind, self._model, self._key = hand, kind, model, key
        self._small = hand.draw()

    def post(self, operation, files=(), **fields):
        body = {"model": self._model, "prompt": "a lighthouse", **fields}
        url = f"/{self._kind}/v1/images/{operation}s"
        headers = self._hand.headers(self._kind, self._key)
        if operation == "generation":
            return self._hand.client.post(url, headers=headers, json=body)
        texts = {name: str(value) for name, value in body.items()}
        return self._hand.client.post(url, headers=headers, data=texts, files=list(files))

    def takes(self, operation="generation", **fields):
        """Whether a generation, or an edit of one picture, may have these fields."""
        if operation == "edit" and self._kind == "apiany":
            # Its edits without a mask are generations with links.
            return self.post("generation", input_images=[self._url], **fields).status_code < 300
        files = [("image", self._small)] if operation == "edit" else []
        return self.post(operation, files, **fields).status_code < 300

    def takes_images(self, count):
        if self._kind == "apiany":
            return self.takes(input_images=[self._url] * count)
        return self.post("edit", [("image[]", self._small)] * count).status_code < 300

    def takes_masked(self, mask=None, count=1, **fields):
        name = "image" if count == 1 else "image[]"
        picture = self._small if mask is None else self._hand.draw(size=(1024, 1024))
        mask = mask or self._hand.draw(mode="RGBA")
        return self.post("edit", [(name, picture)] * count + [("mask", mask)], **fields).status_code < 300

    def made(self, size):
        """The size that comes of one; None where it is refused."""
        answer = self.post("generation", size=size)
        return self._hand.book()[-1]["size_made"] if answer.status_code < 300 else None

    @functools.cached_property
    def _url(self):
        return self._hand.upload(self._small)


def find_sizes(vendor):
    """`exact`, the seven, or the sizes that are taken at all."""
    odd = vendor.made("1920x1088")
    if odd == "1920x1088":
        return "exact"
    if odd in map(str, SEVEN.made):
        return SEVEN
    return tuple(size for size in SEVEN.made if vendor.made(str(size)) == str(size))


def find_passed(vendor):
    """The parameters that are taken as they come, each with its operation."""
    tries = itertools.product([name for name, one in PARAMETERS.items() if one.use == "passed"], ("generation", "edit"))
    return frozenset((name, operation) for name, operation in tries if vendor.takes(operation, **{name: other(name)}))


def other(name):
    """A value of a parameter that is not its default."""
    one = PARAMETERS[name]
    if one.kind == "choice":
        return next(value for value in one.values if value != one.default)
    return {"integer": one.most, "boolean": not one.default, "text": "x"}[one.kind]


def find_abilities(hand, vendor):
    found = {"sizes": find_sizes(vendor), "takes_auto_size": vendor.takes(size="auto")}
    # From here on pictures need not be drawn.
    hand.fault("wrong_size", {"size": "16x16"}, times=None)
    formats = tuple(form for form in ("png", "jpeg", "webp") if vendor.takes(output_format=form))
    has_masks = vendor.takes_masked()
    found |= {
        "max_n": 10 if vendor.takes(n=10) and vendor.takes("edit", n=10) else 1,
        "takes_format": bool(formats),
        "formats": formats or ("png", "jpeg"),
        "max_references": 16 if vendor.takes_images(16) and not vendor.takes_images(17) else None,
        "masked_references": next((count for count in (16, 1) if vendor.takes_masked(count=count)), 0),
        "masked_n": 10 if vendor.takes_masked(n=10) else 1,
        "masked_quality": vendor.takes_masked(quality="low"),
        "edit_quality": vendor.takes("edit", quality="low"),
        "passes": find_passed(vendor),
        "backgrounds": tuple(one for one in ("opaque", "transparent") if vendor.takes(background=one)),
        "passes_user": vendor.takes(user="u") and vendor.takes("edit", user="u"),
    }
    if has_masks:
        large = hand.draw(size=(1024, 1024), mode="RGBA", compress_level=0)
        found["mask_bytes"] = vendor.takes_masked(large)
    return found


@pytest.mark.parametrize("credential", CREDENTIALS, ids=str)
def test_profile_is_what_the_vendor_takes(hand, credential):
    """Neither side knows an ability that the other does not, but for those that wait for the operator's word."""
    kind, model, group = credential
    found = find_abilities(hand, Vendor(hand, kind, model, CREDENTIALS[credential]))
    shipped = dataclasses.asdict(find_offer(kind, model, group).profile) | HELD_BACK.get(kind, {})
    shipped["sizes"] = find_offer(kind, model, group).profile.sizes
    shipped["mask_bytes"] = shipped["mask_bytes"] > 4_200_000
    asked = {name: value for name, value in shipped.items() if name in found}
    assert found == asked
    assert set(shipped) - set(found) <= NOT_ASKED | ({"mask_bytes"} if not found["masked_references"] else set())
    assert found["sizes"] in ("exact", SEVEN, THREE)
