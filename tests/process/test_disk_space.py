"""Disk space: new work is refused while a disk has too little free space, and accepted again once there is enough."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.process.admission import DiskSpace, free_bytes
from tests.support.gateways import GENERATIONS, Gateways, error_of, small, wait_until

MIB = 2**20


class Disk:
    """A disk whose room, and a clock whose time, are set by hand."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.time = 0.0
        self.looks = 0

    def measure(self, folder: Path) -> int:
        self.looks += 1
        return self.free

    def now(self) -> float:
        return self.time


def headroom_of(disk: Disk, *folders: str) -> DiskSpace:
    return DiskSpace([Path(folder) for folder in folders or ("/data",)], 5 * MIB, measure=disk.measure, now=disk.now)


async def test_shortage_comes_and_goes() -> None:
    """A disk that fills up is noticed within a second, and so is one that is cleared."""
    disk = Disk(5 * MIB)
    disk_space = headroom_of(disk)
    assert await disk_space.find_shortage() is None
    disk.free, disk.time = 5 * MIB - 1, 1.0
    assert "/data has 4 MiB free, less than limits.min_free (5 MiB)" in str(await disk_space.find_shortage())
    disk.free, disk.time = 5 * MIB, 2.0
    assert await disk_space.find_shortage() is None


async def test_disk_is_looked_at_once_a_second() -> None:
    """However many ask, a disk is looked at once a second."""
    disk = Disk(0)
    disk_space = headroom_of(disk)
    for _ in range(100):
        assert await disk_space.find_shortage() is not None
        disk.time += 0.009
    assert disk.looks == 1


async def test_broken_disk_is_a_shortage() -> None:
    """A disk that cannot be measured has no room."""

    def fail(folder: Path) -> int:
        raise OSError(5, "Input/output error")

    shortage = await DiskSpace([Path("/data")], 1, measure=fail).find_shortage()
    assert shortage == "/data cannot be measured (Input/output error)"


async def test_nothing_to_watch_is_no_shortage() -> None:
    """Where nothing is kept on this machine's disks they do not matter."""
    assert await DiskSpace([], 2**60).find_shortage() is None


def test_folder_is_not_needed_yet(tmp_path: Path) -> None:
    """A folder that is made later is judged by the disk it will be on."""
    assert free_bytes(tmp_path / "a" / "b") > 0


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = Path(tempfile.mkdtemp(prefix="igw-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


def test_full_disk_closes_spending(gateways: Gateways, small_disk: Path) -> None:
    """Below the floor nothing is opened or sent, while models and pictures are read; with room it goes on by itself."""
    limits = {"min_free": 5 * MIB}
    storage = {"storage_url": small_disk.as_uri()}
    gateway = gateways.open(settings=storage, limits=limits)
    made = gateway.generate(response_format="url")
    assert made.status_code == 200
    (small_disk / "filler").write_bytes(bytes(5 * MIB))
    wait_until(lambda: gateway.get("/readyz").status_code == 503, "the notice of the full disk")
    before = gateway.simulator.log()
    # The body is wrong, and not read: the refusal comes before anything of the request counts.
    for body in (small(), {"model": 7}):
        answer = gateway.post(GENERATIONS, json=body)
        assert (answer.status_code, error_of(answer)["code"]) == (503, "storage_full")
        assert answer.headers["retry-after"] == "60"
    assert gateway.simulator.log() == before
    assert len(gateway.task_records()) == 1
    assert gateway.get("/readyz").json()["problems"] == {"storage": "full"}
    assert gateway.get("/v1/models").status_code == 200
    assert gateway.client.get(made.json()["data"][0]["url"]).status_code == 200
    (small_disk / "filler").unlink()
    wait_until(lambda: gateway.generate().status_code == 200, "the return of room")
