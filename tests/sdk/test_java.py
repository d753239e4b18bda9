"""The JDK's own HttpClient, with its default settings, drives the gateway where a JDK is."""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

from tests.support.plain_pictures import png
from tests.support.processes import clean_environment
from tests.support.sdk_views import PINNED, Gateway

PROGRAM = Path(__file__).parent / "java" / "Images.java"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("javac") is None, reason="there is no JDK; on Debian: default-jdk-headless"),
]


def test_default_client_gets_its_pictures(gateway: Gateway, tmp_path: Path) -> None:
    """A generation and an edit, with a length and in chunks, each beside an offer of HTTP/2, have their pictures."""
    picture = tmp_path / "a.png"
    picture.write_bytes(png(640, 640))
    # One thread compiles, and none optimises: the program runs once.
    command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", str(PROGRAM)]
    ended = subprocess.run(
        [*command, gateway.base_url, gateway.key, PINNED[0], str(picture)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    answers = json.loads(ended.stdout)
    assert sorted(answers) == ["edit", "edit in chunks", "generation", "generation in chunks"]
    for name, answer in answers.items():
        assert answer["status"] == 200, (name, answer["body"])
        assert b64decode(answer["body"]["data"][0]["b64_json"]).startswith(b"\x89PNG"), name
