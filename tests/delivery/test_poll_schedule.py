"""The schedule of polls, by the measured times of such tasks."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from statistics import mean, median

import pytest

from gateway.catalogue.capabilities import Fit
from gateway.delivery.bridge import ENOUGH, PollSchedule
from gateway.health.condition import Latency, kind_of
from gateway.jobs.job import Quality, Sent, Size
from tests.support.gateways import TASKS, Gateways


@pytest.mark.parametrize("known", [None, Latency(ENOUGH - 1, 40.0)])
def test_unknown_tasks_are_polled_often(known: Latency | None) -> None:
    """Before twenty samples the pauses begin at half a second and grow by 1.3."""
    assert PollSchedule.of(known) == PollSchedule(0.5, 0.65, 1.3)


def test_known_tasks_are_polled_late() -> None:
    """From twenty on the first poll comes after 0.6 of the median, the others every 2.6 s."""
    assert PollSchedule.of(Latency(ENOUGH, 40.0)) == PollSchedule(24.0, 2.6, 1.0, is_learned=True)


def follow(schedule: PollSchedule, seconds: float, seed: int) -> tuple[int, float]:
    """The number of polls of a task that takes so long, and the seconds until its end is found."""
    now, polls = 0.0, 0
    for wait in schedule.waits(5, random.Random(seed).random):
        now, polls = now + wait, polls + 1
        if now >= seconds:
            break
    return polls, now - seconds


def test_figures_of_a_learned_schedule() -> None:
    """A task of 40 s is polled about eight times, and its end is found 1.3 s late in the median."""
    found = [follow(PollSchedule.of(Latency(ENOUGH, 40.0)), 40.0, seed) for seed in range(2000)]
    polls, delays = zip(*found, strict=True)
    assert 7 <= mean(polls) <= 8.5
    assert 1.1 <= median(delays) <= 1.5
    assert max(delays) <= 2.6 * 1.2


def test_figures_of_varied_tasks() -> None:
    """Tasks of 20 to 80 s around such a median cost about as many polls, and their ends are found no later."""
    draw = random.Random(1)
    found = [
        follow(PollSchedule.of(Latency(ENOUGH, 40.0)), 40.0 * 2 ** draw.uniform(-1, 1), seed) for seed in range(2000)
    ]
    polls, delays = zip(*found, strict=True)
    assert 6 <= mean(polls) <= 10
    assert median(delays) <= 1.5


def test_called_back_tasks_are_polled_seldom() -> None:
    """Where callbacks come, a task is polled when it is overdue; an end that they missed is found all the same."""
    schedule = PollSchedule.of(Latency(ENOUGH, 40.0), is_called_back=True)
    first = [next(schedule.waits(5, random.Random(seed).random)) for seed in range(200)]
    assert min(first) > 40
    polls, delay = follow(schedule, 100.0, 1)
    assert polls < 15
    assert delay <= 5 * 1.2


def test_called_back_tasks_of_unknown_length() -> None:
    """Before twenty samples, tasks whose ends callbacks report are polled at the longest pause."""
    waits = PollSchedule.of(None, is_called_back=True).waits(5, lambda: 0.5)
    assert [next(waits) for _ in range(3)] == [5, 5, 5]


def test_learned_median_spares_polls(gateways: Gateways) -> None:
    """After twenty tasks of 0.3 s the next one is polled fewer times than the first one was."""
    gateway = gateways.open(upstreams={"apiany": {"timeouts": {"poll_every": 0.04}}})
    gateway.simulator.fault("latency", seconds=0.3, times=None)
    polls: list[int] = []
    for n in (1, 4, 4, 4, 4, 4, 1):
        gateway.services.health.forget()
        with ThreadPoolExecutor(n) as pool:
            answers = list(pool.map(lambda _: gateway.generate(model=TASKS, size="1024x1024"), range(n)))
        assert {answer.status_code for answer in answers} == {200}
        gateway.settle()
        polls.append(len(gateway.simulator.log("tasks")) - sum(polls))
    (known,) = gateway.conditions()["apiany/main"].latencies.values()
    assert known.samples == 22
    assert 0.3 <= known.median < 2
    assert polls[-1] < polls[0] * 0.8


@pytest.mark.parametrize(
    ("made", "quality", "kind"),
    [
        (None, None, "medium/1K"),
        (Size(1536, 1024), "high", "high/1K"),
        (Size(2048, 1152), "high", "high/2K"),
        (Size(2160, 3840), "low", "low/4K"),
    ],
    ids=str,
)
def test_sizes_are_compared_by_tier(made: Size | None, quality: Quality | None, kind: str) -> None:
    """Latencies are kept for a quality and a tier: one for each size would never have enough."""
    assert kind_of(Fit(1, Sent(quality=quality), made, transcode=False)) == kind
