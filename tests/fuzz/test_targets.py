"""The readers of outside bytes: their corpus and its neighbours every day, guided by coverage in a long run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from tests.fuzz.strategies import edits_of_bytes
from tests.fuzz.targets import TARGETS
from tests.support.ledgers import is_soak
from tests.support.processes import clean_environment
from tests.support.wire_requests import examples, paste

ROOT = Path(__file__).parents[2]
CORPORA = {name: Path(__file__).with_name("corpus") / name for name in TARGETS} | {"catalogue": ROOT / "config"}
SECONDS = 120


def corpus(target: str) -> list[bytes]:
    return [
        path.read_bytes() for path in sorted(CORPORA[target].rglob("*")) if path.suffix != ".json" and path.is_file()
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_neighbours_of_corpus_are_read(target: str) -> None:
    """Each file of the corpus, whole and with a few bytes changed, is read or refused by the reader's own error."""
    starts = corpus(target)
    assert len(starts) >= 2
    for data in starts:
        TARGETS[target](data)

    @examples(25 if target == "catalogue" else 60, 500)
    @hypothesis.given(hypothesis.strategies.sampled_from(starts), edits_of_bytes(3))
    def run(data: bytes, edit: hypothesis.strategies.DataObject) -> None:
        spoiled = edit(data)
        hypothesis.note(paste(spoiled))
        TARGETS[target](spoiled)

    run()


@pytest.mark.soak
@pytest.mark.skipif(not is_soak(), reason="takes minutes")
@pytest.mark.parametrize("target", TARGETS)
def test_coverage_finds_nothing(target: str, tmp_path: Path) -> None:
    """Two minutes of atheris find no input that breaks a promise of the reader."""
    found = tmp_path / "found"
    found.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.coverage_run", target, str(SECONDS), str(found), str(CORPORA[target])]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "stat::number_of_executed_units" in ended.stderr
