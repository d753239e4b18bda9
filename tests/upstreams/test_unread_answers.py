"""Answers that could not be read: their starts are kept as files, few and small."""

from __future__ import annotations

from pathlib import Path

from gateway.net.outside_text import Mask
from gateway.upstreams.unread_answers import UnreadAnswers
from gateway.upstreams.verdict import Failure


async def test_newest_answers_are_kept(tmp_path: Path) -> None:
    """The oldest files go, and nothing else of the folder."""
    folder = tmp_path / "unread"
    answers = UnreadAnswers(folder, Mask(), most=3)
    for number in range(6):
        await answers.keep("anyfast/main", f"call_{number}", Failure("body", 200, start=b"a\nb"))
        (folder / "note").touch()
    names = sorted(one.name.partition("-")[2] for one in folder.glob("*.txt"))
    assert names == ["call_3.txt", "call_4.txt", "call_5.txt"]
    assert (folder / "note").exists()
    text = next(iter(folder.glob("*call_5.txt"))).read_text()
    assert text.startswith("upstream: anyfast/main\ncall: call_5\nstatus: 200\n")
    assert text.endswith("\na\nb")


async def test_bytes_become_text(tmp_path: Path) -> None:
    """Bytes that are no text are written as escapes, and secrets in them are hidden."""
    answers = UnreadAnswers(tmp_path, Mask(["vk-0123456789abcdef"]))
    start = b"\x89PNG\xff\n{vk-0123456789abcdef http://10.0.0.1/}" + b"x" * 20_000
    await answers.keep("a/b", "call_1", Failure("body", 200, start=start))
    text = next(tmp_path.iterdir()).read_text()
    assert "\\xff" in text
    assert "{*** [address]}xxx" in text or "{*** [address]" in text


async def test_nothing_to_keep(tmp_path: Path) -> None:
    """Other failures leave no file, and a folder that cannot be written fails no call."""
    await UnreadAnswers(tmp_path / "unread", Mask()).keep("a/b", "call_1", Failure("read"))
    assert not (tmp_path / "unread").exists()
    (tmp_path / "file").touch()
    await UnreadAnswers(tmp_path / "file", Mask()).keep("a/b", "call_1", Failure("body", start=b"x"))
