"""`imagegate probe` at the stand-in vendors: asks first, pays each question once, prints lines that can be pasted."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.catalogue.catalogue import load
from gateway.cli.probe.answers import Learned
from gateway.cli.probe.command import write_lines
from tests.support.plans import SHIPPED, example_prices
from tests.support.processes import clean_environment, imagegate
from tests.support.simulators import Simulator

CATALOGUES = [SHIPPED, *sorted((SHIPPED.parent / "examples").glob("*.yaml"))]
KEYS = {"ANYFAST_API_KEY": "sim-direct", "ANYFAST_C_API_KEY": "sim-c", "APIANY_API_KEY": "sim-apiany"}


@pytest.fixture
def vendors(simulator_process: Simulator) -> Simulator:
    simulator_process.reset()
    return simulator_process


def write(folder: Path, vendors: Simulator) -> Path:
    """The shipped catalogue with example prices, at the stand-in vendors."""
    raw = yaml.safe_load(SHIPPED.read_text())
    for upstream in raw["upstreams"].values():
        upstream["base_url"] = f"{vendors.url}/{upstream['kind']}"
        upstream["prices"] = example_prices(upstream["kind"], upstream["model"])
        upstream["timeouts"] = {"poll_every": 0.05}
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def probe(config: Path, *words: str, **keys: str) -> tuple[dict[str, Any], int]:
    run = imagegate("probe", *words, "--json", GATEWAY_CONFIG=str(config), **(KEYS | keys))
    return (json.loads(run.stdout) if run.stdout else {"stderr": run.stderr}), run.returncode


def verdicts(told: Mapping[str, Any]) -> dict[str, str | None]:
    return {one["name"]: one["verdict"] for one in told["questions"]}


def pasted(config: Path, told: Mapping[str, Any], **keys: str) -> dict[str, Any]:
    """The profiles of a catalogue in which the lines were pasted."""
    raw = yaml.safe_load(config.read_text())
    raw["upstreams"] |= yaml.safe_load(told["catalogue"])["upstreams"]
    path = config.with_name("pasted.yaml")
    path.write_text(yaml.safe_dump(raw))
    return {one.upstream: one for one in load(path, KEYS | keys).targets}


def test_other_group_is_found_out(tmp_path: Path, vendors: Simulator) -> None:
    """A key outside the Direct group is told by its answers, each question paid for at most once, and can be pasted."""
    config = write(tmp_path, vendors)
    told, code = probe(config, "anyfast", "--yes", ANYFAST_API_KEY="sim-basic")
    assert code == 0
    assert verdicts(told) == {
        "models": "yes",
        "plain": "yes",
        "n": "no",
        "webp": "no",
        "edit-quality": "no",
        "mask": "no",
    }
    assert len(vendors.paid()) == 5
    assert len(vendors.book()) == 1
    profile = pasted(config, told)["anyfast"].profile
    assert (profile.max_n, profile.masked_references) == (1, 0)


def test_direct_key_needs_no_change(tmp_path: Path, vendors: Simulator) -> None:
    """Where the vendor does what the catalogue says, there is nothing to paste."""
    told, code = probe(write(tmp_path, vendors), "anyfast", "--yes", "--only", "n", "--only", "mask")
    assert (code, verdicts(told), told["catalogue"]) == (0, {"n": "yes", "mask": "yes"}, None)
    assert [one["n"] for one in vendors.book()] == [2, 1]


def test_variant_tells_its_form(tmp_path: Path, vendors: Simulator) -> None:
    """-c's edits answer links, and that is told."""
    told, _ = probe(write(tmp_path, vendors), "anyfast-c", "--yes", "--only", "edit-form")
    assert told["questions"][0]["words"][0] == "an edit's picture comes as a link; the gateway reads both forms"


def test_apiany_is_asked_all(tmp_path: Path, vendors: Simulator) -> None:
    """Tasks are followed, references uploaded, credits told in both ways; a price that is another can be pasted."""
    config = write(tmp_path, vendors)
    config.write_text(config.read_text().replace("1K: '0.015'", "1K: '0.02'"))
    told, code = probe(config, "apiany/main", "--yes")
    assert code == 0, told
    assert set(verdicts(told).values()) == {"yes"}
    words = {one["name"]: one["words"] for one in told["questions"]}
    assert "the ended task reports credits: charged 15" in words["price"]
    assert "that is $0.015000 at $1.00 for a thousand" in words["price"]
    assert "at once, as a link" in words["mask"][0]
    assert "1024x1536" in words["tall"][0]
    assert len(vendors.paid()) == len(vendors.book()) == 6
    assert not any(one["undocumented"] or one["refused"] for one in vendors.log())
    prices = pasted(config, told)["apiany"].prices
    assert prices is not None
    assert prices.by_size is not None
    assert prices.by_size["any"]["1K"] == "0.015"


@pytest.mark.parametrize(
    "path", [SHIPPED, *sorted((SHIPPED.parent / "examples").glob("*.yaml"))], ids=lambda path: path.name
)
def test_printed_entry_keeps_the_rest(tmp_path: Path, path: Path) -> None:
    """The printed entry says all that the written one does, whatever stands there, and one thing more."""
    raw = yaml.safe_load(path.read_text())
    named = [one["key"].removeprefix("env:") for up in raw["upstreams"].values() for one in up["credentials"]]
    keys = dict.fromkeys(named, "x")
    before = load(path, keys)
    for target in before.targets:
        lines = write_lines(target, [Learned("yes", (), {"edit_quality": not target.profile.edit_quality})])
        copy = tmp_path / "gateway.yaml"
        copy.write_text(yaml.safe_dump(raw | {"upstreams": raw["upstreams"] | yaml.safe_load(lines)["upstreams"]}))
        after = load(copy, keys)
        changed = next(one for one in after.targets if one.label == target.label)
        assert changed.profile.edit_quality is not target.profile.edit_quality
        exclude = {"credentials": {"__all__": {"capabilities": {"edit_quality"}}}}
        assert changed.config.model_dump(exclude=exclude) == target.config.model_dump(exclude=exclude)
        assert replace(changed, config=target.config, profile=target.profile) == target


def test_other_snapping_is_found_out(tmp_path: Path, vendors: Simulator) -> None:
    """An upstream that makes the size that covers is from then on asked for none but the seven."""
    config = write(tmp_path, vendors)
    vendors.fault("wrong_size", upstream="apiany", size="2048x1152")
    told, _ = probe(config, "apiany", "--yes", "--only", "snapping")
    assert verdicts(told) == {"snapping": "no"}
    profile = pasted(config, told)["apiany"].profile
    assert len(profile.sizes) == 7
    assert profile.takes_auto_size


def test_lost_answer_ends_the_probe(tmp_path: Path, vendors: Simulator) -> None:
    """A call whose outcome nobody knows is not sent again, and nothing is asked after it."""
    vendors.fault("reset", when="after", upstream="anyfast")
    told, code = probe(write(tmp_path, vendors), "anyfast", "--yes")
    assert code == 1
    assert verdicts(told)["plain"] == "unclear"
    assert "this may have been billed" in told["questions"][1]["words"][0]
    assert verdicts(told)["n"] is None
    assert len(vendors.paid()) == len(vendors.book()) == 1


def test_nothing_is_spent_unasked(tmp_path: Path, vendors: Simulator) -> None:
    """Without `--yes` a script spends nothing, and a dry run asks nobody; both tell what it may cost."""
    config, env = write(tmp_path, vendors), KEYS
    refused = imagegate("probe", "apiany", GATEWAY_CONFIG=str(config), **env)
    assert refused.returncode == 1
    assert "agree with --yes" in refused.stderr
    assert "6 paid calls, $0.165000 at most" in refused.stdout
    assert "your own money" in refused.stdout
    listed = imagegate("probe", "anyfast", "--dry-run", GATEWAY_CONFIG=str(config), **env)
    assert listed.returncode == 0
    assert vendors.log() == []


@pytest.mark.parametrize(("typed", "calls"), [("n", 0), ("y", 1)])
def test_person_is_asked_first(tmp_path: Path, vendors: Simulator, typed: str, calls: int) -> None:
    """On a terminal nothing is sent before somebody has agreed."""
    config = write(tmp_path, vendors)
    keyboard, terminal = pty.openpty()
    os.write(keyboard, f"{typed}\n".encode())
    command = [sys.executable, "-m", "gateway", "probe", "anyfast-c", "--only", "plain"]
    env = clean_environment(GATEWAY_CONFIG=str(config), **KEYS)
    run = subprocess.run(command, stdin=terminal, env=env, capture_output=True, text=True, timeout=30, check=False)
    os.close(terminal)
    os.close(keyboard)
    assert "Spend this with anyfast-c/main?" in run.stderr
    assert run.returncode == (0 if calls else 1)
    assert len(vendors.log()) == calls


def test_free_questions_need_no_leave(tmp_path: Path, vendors: Simulator) -> None:
    """What costs nothing is asked at once."""
    config = str(write(tmp_path, vendors))
    run = imagegate("probe", "apiany", "--only", "balance", GATEWAY_CONFIG=config, **KEYS)
    assert run.returncode == 0
    assert "10000000 credits are left" in run.stdout
    assert "The catalogue has all of this already." in run.stdout


def test_wrong_names_are_told(tmp_path: Path, vendors: Simulator) -> None:
    """An upstream that is off, one that is not there and an unknown question end in a sentence."""
    config = write(tmp_path, vendors)
    off = imagegate("probe", "apiany", GATEWAY_CONFIG=str(config), ANYFAST_API_KEY="x")
    assert (off.returncode, off.stderr) == (1, "imagegate: apiany is not configured: env:APIANY_API_KEY is not set.\n")
    assert "There is no upstream 'nope'" in imagegate("probe", "nope", GATEWAY_CONFIG=str(config), **KEYS).stderr
    unknown = imagegate("probe", "apiany", "--only", "nope", GATEWAY_CONFIG=str(config), **KEYS)
    assert unknown.returncode == 2
    assert vendors.log() == []
