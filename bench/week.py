"""The cost of a week of mixed traffic by each strategy, at the simulator's example prices: a table of docs/routing.md.

    python -m bench.week

Plans 2,000 requests drawn from one seed, and sums the prices of the first choices. Nothing is sent.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from gateway.catalogue.catalogue import Catalogue, load
from gateway.catalogue.document import STRATEGIES
from gateway.dollars import show_usd
from gateway.jobs.job import SQUARE, ImageJob, Shape, Size
from gateway.pictures.picture import Picture
from gateway.pictures.spool import Blob
from gateway.routing import plan
from gateway.routing.plan import Circumstances, Medians

REQUESTS = 2_000
SEED = 20_261_101

SECONDS = {"anyfast": 1.0, "anyfast-c": 1.15, "apiany": 1.4}
"""The assumed duration of each upstream, relative to the official model; not measured."""

_BY_QUALITY = {"low": 23.0, "medium": 48.0, "high": 155.0}
_REFERENCE = Picture(Blob(0, data=b""), "png", 1024, 1024, orientation=1, has_alpha=False)

_SHARES = {
    "size": ((None, 40), (SQUARE, 15), (Size(1536, 1024), 15), (Size(1024, 1536), 10), (Size(2048, 2048), 10),
             (Shape(16, 9, "2K"), 6), (Size(3840, 2160), 4)),
    "quality": ((None, 45), ("low", 25), ("medium", 15), ("high", 15)),
    "n": ((1, 80), (2, 10), (4, 10)),
    "references": ((0, 75), (1, 20), (3, 5)),
}  # fmt: skip


def requests(count: int = REQUESTS, seed: int = SEED) -> Iterator[ImageJob]:
    """The week's requests, drawn by the percentages in `_SHARES`."""
    dice = random.Random(seed)
    for _ in range(count):
        drawn = {
            name: dice.choices([one for one, _ in shares], [share for _, share in shares])[0]
            for name, shares in _SHARES.items()
        }
        references = (_REFERENCE,) * drawn.pop("references")
        operation = "edit" if references else "generation"
        yield ImageJob(operation=operation, prompt="a" * dice.randint(20, 400), references=references, **drawn)


def priced_catalogue() -> Catalogue:
    """The shipped catalogue with the example prices, and no rules."""
    return load(Path(__file__).parent.parent / "config" / "gateway.yaml", {}, simulator_url="http://127.0.0.1")


def assumed_medians(catalogue: Catalogue) -> Medians:
    return {
        (target.label, f"{quality}/{tier}"): seconds * SECONDS[target.upstream]
        for target in catalogue.targets
        for tier in ("1K", "2K", "4K")
        for quality, seconds in _BY_QUALITY.items()
    }


def cost_of(way: str, catalogue: Catalogue, jobs: list[ImageJob]) -> tuple[int, dict[str, int]]:
    """µ$ of all jobs by a strategy, or by one upstream alone (`only …`), and how many each upstream served."""
    dice, medians = random.Random(SEED), assumed_medians(catalogue)
    model = catalogue.document.models["gpt-image-2"]
    total, served = 0, dict.fromkeys(model.upstreams, 0)
    for job in jobs:
        strategy = next((one for one in STRATEGIES if one == way), None)
        around = Circumstances(strategy=strategy, medians=medians, draw=dice.random())
        first = plan.plan(job, "gpt-image-2", model, catalogue, around=around).choices[0]
        assert first.total is not None
        total += first.total.expected
        served[first.target.upstream] += 1
    return total, served


def render() -> str:
    """The table of docs/routing.md."""
    catalogue, jobs = priced_catalogue(), list(requests())
    names = catalogue.document.models["gpt-image-2"].upstreams
    lines = [
        "| strategy | a week | a request | " + " | ".join(names) + " |",
        "|---|---:|---:|" + "---:|" * len(names),
    ]
    for strategy in STRATEGIES:
        total, served = cost_of(strategy, catalogue, jobs)
        shares = " | ".join(f"{100 * served[name] / len(jobs):.0f} %" for name in names)
        lines.append(f"| `{strategy}` | ${total / 1e6:,.2f} | ${show_usd(total // len(jobs))} | {shares} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(render())
