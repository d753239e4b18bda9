"""The data folder names the gateway that runs in it, and keeps its files from others."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from gateway.process.data_folder import DataFolder, FolderInUse, make_once, open_private, replace

REDIS = "redis://redis.internal:6379/0"
KILL = f"kill {os.getpid()}"


@pytest.mark.parametrize(
    ("redis", "stops_in", "has", "lacks"),
    [
        (None, None, [f"process {os.getpid()}", KILL, "--data-dir"], ["stopping"]),
        (REDIS, None, [REDIS, "GATEWAY_REDIS_URL", "GATEWAY_KEY_PEPPER", "--data-dir"], [KILL, "stopping"]),
        (None, 90.0, ["is stopping", "within 90 s", "Try again"], [KILL]),
        (REDIS, 90.0, ["is stopping", "within 90 s", "Try again"], [KILL]),
        (None, -5.0, ["is stopping", "within 1 s"], [KILL]),
    ],
)
def test_refusal_fits_the_gateway(
    tmp_path: Path, redis: str | None, stops_in: float | None, has: list[str], lacks: list[str]
) -> None:
    """A folder in use is refused with what the gateway in it does, and with a remedy that costs no picture."""
    folder = DataFolder(tmp_path)
    with folder.locked(), folder.announced(redis):
        if stops_in is not None:
            folder.announce_stop(redis, time.time() + stops_in)
        with pytest.raises(FolderInUse) as refusal, folder.locked():
            pass
    text = str(refusal.value)
    assert [words for words in has if words not in text] == []
    assert [words for words in lacks if words in text] == []
    assert folder.running_gateway() is None
    assert {path.name for path in tmp_path.iterdir()} == {"lock"}


@pytest.mark.parametrize("left", ["", "{", "[]", '{"redis": null}', '{"stops_by": 1}'])
def test_left_record_names_nothing(tmp_path: Path, left: str) -> None:
    """What a killed gateway left in the folder is not taken for the next one's."""
    folder = DataFolder(tmp_path)
    folder.running_path.write_text(left)
    with folder.locked(), folder.announced():
        found = folder.running_gateway()
    assert found is not None
    assert (found.pid, found.redis, found.stops_by) == (os.getpid(), None, None)


def test_files_are_private(tmp_path: Path) -> None:
    """Every file is its owner's alone, also one that was open to others before."""
    (tmp_path / "log").touch(mode=0o644)
    replace(tmp_path / "replaced", "x")
    make_once(tmp_path / "made", "x")
    open_private(tmp_path / "log").close()
    with DataFolder(tmp_path).locked(), DataFolder(tmp_path).announced():
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_cut_off_file_is_removed(tmp_path: Path) -> None:
    """A file that cannot be written whole, as on a full disk, is removed, and the old one stays."""
    (tmp_path / "kept").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Beyond its limit a write fails as on a full disk; Python ignores the signal.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            replace(tmp_path / "kept", "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "old"
