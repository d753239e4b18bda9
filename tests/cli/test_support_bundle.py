"""`imagegate support-bundle`: what is in it, what never is, and that it is written when much is broken."""

from __future__ import annotations

import json
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from gateway.net.outside_text import Mask
from gateway.operations.log_tail import read_log_tail
from gateway.operations.support import clean_facts
from tests.conftest import Valkey
from tests.support.bundles import read_bundle
from tests.support.shell import Shell


def make_bundle(shell: Shell, path: Path, *words: str) -> dict[str, Any]:
    """Type the command, and return the parts of the archive that it wrote."""
    done = shell.type("support-bundle", str(path), *words)
    assert done.exit_code == 0, done.output
    return {name: json.loads(data) for name, data in read_bundle(path).items() if name.endswith(".json")}


@pytest.mark.parametrize("name", ["bundle.zip", "bundle.tar.gz"])
def test_every_part_is_there(shell: Shell, tmp_path: Path, name: str) -> None:
    """Either kind of archive has all parts in one folder, a page that names each, and is for its owner alone."""
    log = tmp_path / "gateway.log"
    log.write_text('{"event": "request", "status": 200}\n')
    path = tmp_path / name
    parts = make_bundle(shell, path, "--log", str(log))
    opened = zipfile.is_zipfile(path), tarfile.is_tarfile(path)
    assert opened == (name.endswith(".zip"), not name.endswith(".zip"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    about = read_bundle(path)["README.txt"].decode()
    assert {line.split()[0] for line in about.splitlines() if ".json  " in f"{line} "} == set(parts)
    assert parts["versions.json"]["imagegate"]
    assert any(one.startswith("redis ") for one in parts["versions.json"]["libraries"])
    assert parts["settings.json"]["GATEWAY_KEY_PEPPER"] == "set"
    assert parts["settings.json"]["GATEWAY_REDIS_URL"] == {"form": "socket", "hosts": 0, "is_encrypted": False}
    assert "GATEWAY_ADMIN_TOKEN" in parts["settings.json"]
    assert parts["catalogue.json"]["upstreams"]["apiany"]["credentials"] == [{"key": "env:APIANY_API_KEY"}]
    assert {one["kind"] for one in parts["check.json"]["findings"]} >= {"no_upstream"}
    assert parts["store.json"]["maxmemory_policy"] == "noeviction"
    assert parts["upstreams.json"]["credentials"][0]["label"] == "anyfast/main"
    assert parts["ledger.json"]["differences"] == {}
    assert parts["counts.json"]["keys"] == 0
    assert parts["log.json"] == {"lines": [{"event": "request", "status": 200}], "left_out": 0}


def test_pauses_are_in_it(shell: Shell, tmp_path: Path) -> None:
    """What an operator paused is often the whole explanation."""
    assert shell.type("pause", "--everything").exit_code == 0
    parts = make_bundle(shell, tmp_path / "bundle.zip")
    assert [one["scope"] for one in parts["upstreams.json"]["pauses"]] == ["everything"]
    assert "paused" in {one["kind"] for one in parts["check.json"]["findings"]}


def test_prices_stay_out(shell: Shell, tmp_path: Path) -> None:
    """Of the catalogue's prices the bundle says that they are set."""
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "upstreams: {one: {kind: apiany, base_url: 'https://a.test', model: m, prices: {per_image: '0.0123'},"
        " credentials: [{key: 'env:ONE', prices: {per_image: '0.0456'}}]}}\nmodels: {gpt-image-2: {upstreams: [one]}}\n"
    )
    shell.env["GATEWAY_CONFIG"] = str(config)
    parts = make_bundle(shell, tmp_path / "bundle.zip")
    one = parts["catalogue.json"]["upstreams"]["one"]
    assert (one["prices"], one["credentials"][0]["prices"]) == ("set", "set")
    assert "0.0123" not in json.dumps(parts)
    assert "0.0456" not in json.dumps(parts)


def test_wrong_settings_are_named_alone(shell: Shell, tmp_path: Path) -> None:
    """With settings that nothing starts with, the bundle names the variables, and quotes no value."""
    shell.env |= {"GATEWAY_PORT": "hunter2-in-the-wrong-place", "GATEWAY_UNHEARD_OF": "hunter3"}
    parts = make_bundle(shell, tmp_path / "bundle.zip")
    assert set(parts) == {"versions.json", "settings.json"}
    assert parts["settings.json"] == {"wrong": ["GATEWAY_PORT", "GATEWAY_UNHEARD_OF"]}


def test_wrong_catalogue_is_not_quoted(shell: Shell, tmp_path: Path) -> None:
    """A key that was pasted into the catalogue is not in the bundle; the line is, and so are the store's parts."""
    config = tmp_path / "gateway.yaml"
    config.write_text("upstreams:\n  one:\n    kind: apiany\n    credentials: [{key: hunter2hunter2hunter2}]\n")
    shell.env["GATEWAY_CONFIG"] = str(config)
    parts = make_bundle(shell, tmp_path / "bundle.zip")
    assert 4 in parts["catalogue.json"]["wrong_lines"]
    assert parts["upstreams.json"] == {"unread": "CatalogueError"}
    assert parts["store.json"]["redis_version"]
    assert "hunter2" not in json.dumps(parts)


def test_store_that_is_away_is_said(shell: Shell, tmp_path: Path, valkey: Valkey) -> None:
    """Without an answer from Redis the parts that need it say so, and the others are there."""
    with valkey.paused():
        parts = make_bundle(shell, tmp_path / "bundle.zip")
    assert parts["store.json"] == parts["counts.json"] == {"unread": "StoreSilent"}
    assert parts["catalogue.json"]["models"]
    assert "store_unavailable" in {one["kind"] for one in parts["check.json"]["findings"]}


def test_folder_without_store_is_said(shell: Shell, tmp_path: Path) -> None:
    """In a folder where no gateway ran, the bundle says so and makes nothing there."""
    shell.env = {"GATEWAY_DATA_DIR": str(tmp_path / "nothing")}
    parts = make_bundle(shell, tmp_path / "bundle.zip")
    assert "There is no store in" in parts["store.json"]["unread"]
    assert parts["folder.json"] == {"exists": False}
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(("name", "text"), [("bundle.rar", ".tar.gz"), ("there.zip", "exists already")])
def test_other_file_is_left_alone(shell: Shell, tmp_path: Path, name: str, text: str) -> None:
    """A file that exists is never written over, and an unknown ending is refused."""
    (tmp_path / "there.zip").write_text("mine")
    done = shell.type("support-bundle", str(tmp_path / name))
    assert done.exit_code != 0
    assert text in " ".join(done.output.replace("│", " ").split())
    assert (tmp_path / "there.zip").read_text() == "mine"


def test_log_keeps_codes_alone(tmp_path: Path) -> None:
    """Of a log line its event, ids, codes and numbers stay; texts, unknown facts and lines of others do not."""
    log = tmp_path / "log"
    frames = [{"filename": "/x/pipeline.py", "lineno": 7, "name": "serve", "locals": {"prompt": "a cat"}}]
    lines = [
        {
            "event": "request",
            "status": 503,
            "error": "paused",
            "request": "req_1",
            "micro_usd": 7,
            "path": "/v1/a cat",
            "model": "a cat",
        },
        {"event": "a task broke off", "error": "a cat in the rain", "message": "a-cat", "reason": "credential"},
        {"event": "failed", "exception": [{"exc_type": "ValueError", "exc_value": "a cat", "frames": frames}]},
        {"no event": "a cat"},
    ]
    log.write_text("\n".join([*map(json.dumps, lines), "a cat", '"a cat"', ""]))
    assert read_log_tail(log) == {
        "lines": [
            {"event": "request", "status": 503, "error": "paused", "request": "req_1"},
            {"event": "a task broke off", "reason": "credential"},
            {"event": "failed", "exception": [{"type": "ValueError", "frames": ["pipeline.py serve line 7"]}]},
        ],
        "left_out": 3,
    }


def test_long_log_is_cut_at_its_beginning(tmp_path: Path) -> None:
    """Only the end of a long log is read."""
    log = tmp_path / "log"
    log.write_text("".join(f'{{"event": "request", "status": {number}}}\n' for number in range(5000)))
    found = read_log_tail(log)["lines"]
    assert [found[0]["status"], found[-1]["status"], len(found)] == [3000, 4999, 2000]


def test_no_part_of_a_secret_stays() -> None:
    """Where the mask leaves the beginning of a key for people to recognise, the bundle leaves nothing."""
    mask = Mask(["vk_9fQ2hX7LmT4aZ0"], ["relay.corp"])
    texts = [
        "key igw_abcd0123456789abcdefghij.",
        {"sk-ab0123456789abcdef": ["Bearer vk_9fQ2hX7LmT4aZ0"]},
        5,
        None,
        True,
    ]
    assert clean_facts(texts, mask) == ["key ***", {"***": ["Bearer ***"]}, 5, None, True]
    assert clean_facts("at relay.corp:8443", mask) == "at [address]"
