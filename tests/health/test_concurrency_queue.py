"""The queue before the upstreams: in order, fair by key, bounded, and left without a trace."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from gateway.health.concurrency_queue import FairQueue

KEYS = st.sampled_from("abc")
STEPS = st.lists(st.tuples(st.sampled_from(["add", "add", "add", "serve", "leave"]), KEYS), max_size=60)


@given(STEPS)
def test_keys_take_turns(steps: list[tuple[str, str]]) -> None:
    """Between two services of one key every other key that waits all the time is served; within a key, by age."""
    queue: FairQueue[tuple[str, int]] = FairQueue(1000, 1000)
    waiting: dict[str, deque[int]] = {key: deque() for key in "abc"}
    passed_by: dict[str, set[str]] = {key: set() for key in "abc"}
    for number, (step, key) in enumerate(steps):
        if step == "add":
            assert queue.add(key, (key, number))
            waiting[key].append(number)
        elif step == "leave" and waiting[key]:
            queue.leave(key, (key, waiting[key].pop()))
        elif step == "serve" and len(queue):
            served, age = next(iter(queue))
            assert age == waiting[served].popleft()
            queue.serve(served, (served, age))
            for other in "abc":
                if other != served and waiting[other]:
                    assert served not in passed_by[other], f"{served} was served twice while {other} waited"
                    passed_by[other].add(served)
            passed_by[served].clear()
        for one in "abc":
            if not waiting[one]:
                passed_by[one].clear()
        assert len(queue) == sum(map(len, waiting.values()))
    assert sorted(queue) == sorted((key, number) for key, line in waiting.items() for number in line)


def test_queue_is_bounded() -> None:
    """Neither all keys together nor one of them may have more waiting than was set."""
    queue: FairQueue[int] = FairQueue(3, 2)
    assert [queue.add("a", number) for number in range(3)] == [True, True, False]
    assert [queue.add("b", number) for number in range(2)] == [True, False]
    queue.leave("a", 0)
    assert queue.add("b", 1)


def test_leaving_twice_is_nothing() -> None:
    """Who was served, or left already, may leave again."""
    queue: FairQueue[int] = FairQueue(3, 3)
    queue.add("a", 1)
    queue.serve("a", 1)
    queue.leave("a", 1)
    assert list(queue) == []
