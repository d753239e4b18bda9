"""Every plan, and its price, against the vendors' pages as `vendor_pages` has them, and not as the gateway does."""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random

from gateway.catalogue.catalogue import Catalogue
from gateway.errors import UnsupportedValue
from gateway.jobs import parameters
from gateway.jobs.job import ImageJob, Shape, Size, find_fault
from gateway.pictures.picture import Picture
from gateway.routing.plan import Choice, Plan, split_job
from tests.support.ledgers import is_soak
from tests.support.plans import UPSTREAMS, every_kind, picture, plan
from tests.support.vendor_pages import SIZES, TARGETS, SizeKind, Sold, Wish, price, sold

GRID = [
    Wish(size, quality, n, references, masked, output_format)
    for size, quality, n, (references, masked), output_format in itertools.product(
        SIZES.values(),
        (None, "low", "medium", "high"),
        (1, 3, 10),
        ((0, False), (1, False), (16, False), (1, True), (2, True)),
        ("png", "jpeg", "webp"),
    )
]
REQUESTS = 10_000 if is_soak() else 1_500
NAMES = {upstream: name for name, upstream in UPSTREAMS.items()}


def job_of(wish: Wish, prompt: str = "a fox", references: tuple[Picture, ...] | None = None) -> ImageJob:
    """The wish as the gateway reads it."""
    operation = "edit" if wish.references else "generation"
    params = parameters.read_params({"prompt": prompt, **wish.fields()}, operation, is_text=False, refuse_unknown=True)
    pictures = (picture(),) * wish.references if references is None else references
    return parameters.make_job(params, pictures, pictures[0] if wish.masked else None)


def attempt(wish: Wish, catalogue: Catalogue, model: str) -> Plan | None:
    try:
        return plan(job_of(wish), catalogue, model)
    except UnsupportedValue:
        return None


def check(wish: Wish, choice: Choice, page: Sold) -> None:
    """A choice would send what its vendor's pages allow, and promises what they do."""
    found = choice.fit
    calls = split_job(job_of(wish), found, range(wish.n))
    assert tuple(call.n for call in calls) == page.calls
    assert choice.calls == len(page.calls)
    size = found.sent.size
    sent = {
        "size": "auto" if size is None else size.ratio if isinstance(size, Shape) else str(size),
        "resolution": size.tier if isinstance(size, Shape) else None,
        "quality": found.sent.quality,
        "output_format": found.sent.output_format,
    }
    assert sent == {name: value for name, value in page.sent.items() if name != "response_format"}
    assert (None if found.made is None else str(found.made)) == page.made
    assert set(found.compromises) == page.breaks
    assert found.transcode == (wish.output_format != (page.sent["output_format"] or "png"))


def test_plans_agree_with_the_pages() -> None:
    """780 wishes (2,340 in the soak) at five targets each: sent, made and given up as the pages say, or refused."""
    catalogue, seen = every_kind(), Counter[str]()
    wishes = GRID if is_soak() else GRID[::3]
    for wish in wishes:
        for name in TARGETS:
            page, found = sold(name, wish), attempt(wish, catalogue, name)
            assert (found is None) == (page is None), (name, wish)
            seen["refused" if page is None else "broken" if page.breaks else "honoured"] += 1
            if found and page:
                check(wish, found.choices[0], page)
    assert len(GRID) == 2340
    assert seen.total() == 5 * len(wishes)
    assert min(seen.values()) > len(wishes) / 5


def test_together_the_honouring_go_first() -> None:
    """Of all five those serve that honour the wish, or where none does those that can; the others have a reason."""
    catalogue = every_kind()
    for wish in GRID[::3]:
        pages = {name: page for name in TARGETS if (page := sold(name, wish))}
        honouring = {name for name, page in pages.items() if not page.breaks}
        found = attempt(wish, catalogue, "all")
        assert (found is None) == (not pages)
        if found:
            chosen = {NAMES[choice.target.upstream] for choice in found.choices}
            assert chosen == (honouring or set(pages))
            assert {NAMES[one.upstream] for one in found.rejections} == set(TARGETS) - chosen
            assert all(one.unfit.reason for one in found.rejections)


def draw_size(dice: Random) -> SizeKind:
    """One of the table's kinds, or any legal size."""
    if dice.random() < 0.5:
        return dice.choice(list(SIZES.values()))
    while True:
        size = Size(16 * dice.randint(32, 240), 16 * dice.randint(32, 240))
        if find_fault(size) is None:
            return SizeKind((("size", str(size)),), str(size), str(size))


def draw_wish(dice: Random) -> Wish:
    references = dice.choice((0, 0, 1, 2, 5, 16))
    return Wish(
        draw_size(dice),
        dice.choice((None, "low", "medium", "high")),
        dice.randint(1, 10),
        references,
        masked=references in (1, 2) and dice.random() < 0.3,
        output_format=dice.choice(("png", "jpeg", "webp")),
    )


def test_first_choice_is_never_dearer() -> None:
    """1,500 random requests (10,000 in the soak): none of the targets that can serve is cheaper than the first.

    Their prices come from a formula of the test's own.
    """
    catalogue, dice, firsts = every_kind(), Random(10_000), Counter[str]()
    for _ in range(REQUESTS):
        wish, prompt = draw_wish(dice), "fox " * dice.randint(1, 200)
        # The first is square, so that `auto` has one meaning; the others are whatever is sent.
        others = [(dice.randint(16, 4000), dice.randint(16, 4000)) for _ in range(wish.references - 1)]
        sizes = [(1024, 1024), *others] if wish.references else []
        pages = {name: page for name in TARGETS if (page := sold(name, wish))}
        if not pages:
            continue
        feasible = {name for name, page in pages.items() if not page.breaks} or set(pages)
        prices = {name: price(name, wish, prompt, sizes) for name in feasible}
        job = job_of(wish, prompt, tuple(picture(*one) for one in sizes))
        found = plan(job, catalogue, "all")
        told = {NAMES[choice.target.upstream]: choice.total and choice.total.expected for choice in found.choices}
        assert told == prices, wish
        first = NAMES[found.choices[0].target.upstream]
        assert prices[first] == min(one for one in prices.values() if one is not None)
        firsts[first] += 1
    assert firsts.total() > REQUESTS * 0.9
    assert all(firsts[name] > REQUESTS / 100 for name in ("official", "variant", "tasks", "openai"))
