"""Steps beside the requests: taken again and again, whatever becomes of one, and ended when they are to end."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from gateway.process.periodic import PeriodicStep


class Steps:
    """Counts the steps; `faults` are raised by the first ones, in turn."""

    def __init__(self, *faults: Exception | None) -> None:
        self.count = 0
        self._faults = list(faults)

    async def step(self) -> None:
        self.count += 1
        if self._faults and (fault := self._faults.pop(0)):
            raise fault

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(5):
            while self.count < count:
                await asyncio.sleep(0.001)


async def test_step_is_taken_again_and_again() -> None:
    """The first step comes at once, the others after a pause, until the stop."""
    steps = Steps()
    periodic = PeriodicStep("test", 0.001, steps.step, jitter=0.5)
    periodic.start()
    await steps.reach(3)
    await periodic.stop()
    ended = steps.count
    await asyncio.sleep(0.01)
    assert steps.count == ended


async def test_first_step_may_come_after_a_pause() -> None:
    """Where it is asked for, nothing happens at the start; setting `wake` ends a pause."""
    steps = Steps()
    periodic = PeriodicStep("test", 60, steps.step, pauses_first=True)
    periodic.start()
    await asyncio.sleep(0.01)
    assert steps.count == 0
    periodic.wake.set()
    await steps.reach(1)
    await asyncio.sleep(0.01)
    assert steps.count == 1
    await periodic.stop()


async def test_failing_step_is_taken_again() -> None:
    """An expected error has one line however often it repeats, and one when it is over; another error a traceback."""
    steps = Steps(OSError("full"), OSError("full"), None, RuntimeError("who knows"))
    periodic = PeriodicStep("test", 0.001, steps.step, expected=(OSError,))
    with capture_logs() as logs:
        periodic.start()
        await steps.reach(5)
        await periodic.stop()
    assert [(log["log_level"], log["event"], log["step"]) for log in logs] == [
        ("warning", "a periodic step fails", "test"),
        ("info", "a periodic step works again", "test"),
        ("error", "a periodic step failed; it goes on", "test"),
    ]


async def test_step_may_set_its_pause() -> None:
    """A step that knows when it is needed next says so."""
    steps = Steps()

    async def step() -> None:
        await steps.step()
        periodic.seconds = 60 if steps.count == 2 else 0.001

    periodic = PeriodicStep("test", 0.001, step)
    periodic.start()
    await steps.reach(2)
    await asyncio.sleep(0.02)
    assert steps.count == 2
    await periodic.stop()


async def test_stop_outlasts_a_lost_cancellation() -> None:
    """A library that takes a cancellation for an error of its own keeps nobody from stopping."""
    began = asyncio.Event()

    async def step() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            raise OSError("no connection") from error

    periodic = PeriodicStep("test", 60, step, expected=(OSError,))
    periodic.start()
    await began.wait()
    await asyncio.wait_for(periodic.stop(), 5)


async def test_finish_lets_a_step_end() -> None:
    """A step that is under way ends by itself; none is begun after it, and a pause ends at once."""
    ends: list[int] = []

    async def step() -> None:
        await asyncio.sleep(0.01)
        ends.append(1)

    periodic = PeriodicStep("test", 60, step)
    periodic.start()
    await asyncio.sleep(0)
    await asyncio.wait_for(periodic.finish(), 5)
    assert ends == [1]
    periodic = PeriodicStep("test", 60, step)
    periodic.start()
    await asyncio.sleep(0.05)
    await asyncio.wait_for(periodic.finish(), 5)
    assert ends == [1, 1]
    await PeriodicStep("idle", 60, step).finish()
