"""A child process is kept alive whatever its start meets; only a mistake ends the gateway, and only at the start."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.process.children import ChildFailed, ChildWatch, spawn
from gateway.process.settings import StartRefused
from gateway.server.child_keeper import SAY_EVERY_S, ChildKeeper, FirstLine, RestartDelay

PASSING = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EMFILE, "Too many open files"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    MemoryError(),
    subprocess.SubprocessError("Exception occurred in preexec_fn."),
    ChildFailed("it ended (SIGKILL) before it was ready"),
]
FINAL = [StartRefused("no such model"), PermissionError(errno.EACCES, "Permission denied")]


class Stage:
    """A keeper of a child whose next starts meet the troubles in `meets`; each start takes `start_s` on its clock."""

    def __init__(self) -> None:
        self.meets: list[Exception] = []
        self.said: list[str] = []
        self.now = self.start_s = 0.0
        self.watch = ChildWatch()
        delay = RestartDelay(first_s=0.001, longest_s=0.06)
        self.keeper = ChildKeeper("The child", self.start, self.watch, self.said.append, delay, lambda: self.now)

    async def start(self) -> subprocess.Popen[bytes]:
        self.now += self.start_s
        if self.meets:
            raise self.meets.pop(0)
        return spawn(["sleep", "60"], dies_by=signal.SIGKILL)

    async def kill(self) -> None:
        """Kill the child, and return when another one runs."""
        before = self.keeper.process
        assert before is not None
        before.kill()
        await self.until(lambda: self.keeper.process is not before)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    if (process := await made.keeper.release()) is not None:
        process.kill()
        process.wait()
    made.watch.close()


@pytest.mark.parametrize("trouble", [*PASSING, *FINAL], ids=repr)
async def test_restart_waits_trouble_out(stage: Stage, trouble: Exception) -> None:
    """Whatever a restart meets, and however often, the child runs again once that is over."""
    await stage.keeper.begin()
    stage.meets = [trouble] * 5
    await stage.kill()
    assert not stage.meets
    assert len(stage.said) == 2, "the death, and the trouble once"
    assert "ended (SIGKILL)" in stage.said[0]


@pytest.mark.parametrize("trouble", PASSING, ids=repr)
async def test_first_start_waits_trouble_out(stage: Stage, trouble: Exception) -> None:
    """Trouble that passes does not end a first start either."""
    stage.meets = [trouble] * 5
    await stage.keeper.begin()
    assert stage.keeper.process is not None
    assert len(stage.said) == 1


@pytest.mark.parametrize("mistake", FINAL, ids=repr)
async def test_mistake_ends_first_start(stage: Stage, mistake: Exception) -> None:
    """A mistake that no other start would mend ends a first start at once."""
    stage.meets = [mistake]
    with pytest.raises(type(mistake)):
        await stage.keeper.begin()
    assert stage.said == []


async def test_lasting_trouble_is_said_every_minute(stage: Stage) -> None:
    """Trouble that lasts is said once a minute; a death is said each time."""
    await stage.keeper.begin()
    stage.meets, stage.start_s = [OSError(errno.ENOSPC, "No space left on device")] * 10, SAY_EVERY_S / 2
    await stage.kill()
    assert sum("No space left on device" in line for line in stage.said) == 5
    await stage.kill()
    await stage.kill()
    assert sum("ended (SIGKILL)" in line for line in stage.said) == 3


def test_pauses_grow() -> None:
    """Deaths in a row lengthen the pause, up to ten seconds."""
    delay = RestartDelay()
    assert [delay.delay(deaths) for deaths in (1, 2, 3, 5, 7, 8, 10_000)] == [0.1, 0.2, 0.4, 1.6, 6.4, 10.0, 10.0]


async def test_slow_deaths_do_not_add_up(stage: Stage) -> None:
    """A child that ran for a while is started again at once, however often it died before."""
    await stage.keeper.begin()
    for _ in range(8):
        stage.now += RestartDelay().fast_s
        await stage.kill()
    assert set(stage.said) == {"The child ended (SIGKILL); starting it again in 0.0 s"}


async def test_failed_start_leaves_no_descriptor() -> None:
    """A start that fails closes both ends of its pipe, or the supervisor would run out of descriptors."""

    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for _ in range(5):
        with suppress(FileNotFoundError), FirstLine() as first:
            spawn(["/nowhere"], dies_by=signal.SIGKILL, stdout=first.writer)
        assert await first.wait(5) == ""
    assert count() == before


async def test_child_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is given no environment gets none of the operator's variables."""
    for name in ("GATEWAY_ADMIN_TOKEN", "ANYFAST_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "canary")
    with FirstLine() as first:
        child = spawn(["env", "-0"], dies_by=signal.SIGKILL, stdout=first.writer)
    seen = await first.wait(5)
    child.wait()
    assert "canary" not in (seen or "")
    assert os.environ["ANYFAST_API_KEY"] == "canary"
