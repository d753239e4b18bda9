"""`imagegate check` as a person or a script uses it: what would run, what is hardly meant, and where it stands."""

import json
import os
import re
from pathlib import Path

from gateway.health.drift import DriftBook
from gateway.process.data_folder import DataFolder, record_simulator
from gateway.store.client import StoreClient
from tests.conftest import Valkey
from tests.support.plans import SHIPPED
from tests.support.processes import imagegate

SECRET = "s" * 32


def test_check_tells_what_runs(tmp_path: Path) -> None:
    """It tells which upstreams are on, which are off for want of a key and who serves a model, and starts nothing."""
    told = imagegate("check", "--data-dir", str(tmp_path / "data"), APIANY_API_KEY="secret-key").stdout
    assert "upstreams    apiany/main" in told
    assert "model        gpt-image-2: apiany/main" in told
    assert "anyfast: env:ANYFAST_API_KEY is not set" in told
    assert "drift        not known" in told
    assert "secret-key" not in told
    assert not (tmp_path / "data").exists()


def test_findings_name_their_line() -> None:
    """Each finding stands with file, line and field; warnings alone do not fail."""
    checked = imagegate("check", ANYFAST_API_KEY="x")
    line = SHIPPED.read_text().splitlines().index("  anyfast:") + 1
    text = "anyfast/main has no prices: no key with a limit in dollars can use it, nor can `cost` rank it"
    assert f"note         {SHIPPED}:{line}: upstreams.anyfast.prices: {text}" in checked.stdout
    assert checked.returncode == 0


def test_folder_of_demo_gateway_is_told(tmp_path: Path) -> None:
    """Without an upstream key the check lists the aliases, and the demo gateway that runs in the folder."""
    folder = DataFolder(tmp_path / "data")
    folder.make()
    told = imagegate("check", "--data-dir", str(folder.path)).stdout
    assert re.search(r"^aliases +gpt-image-1, .*dall-e-2 \(no upstream is configured\)$", told, re.MULTILINE)
    assert "demo mode" not in told
    with folder.announced():
        record_simulator(folder, "http://127.0.0.1:9")
        told = imagegate("check", "--data-dir", str(folder.path)).stdout
    assert f"a gateway in demo mode (process {os.getpid()}) runs in {folder.path} with the simulator" in told


def test_strict_lets_no_warning_pass(tmp_path: Path) -> None:
    """`--strict` ends with 1 for a warning and with 0 for notes alone; the findings are printed either way."""
    refused = imagegate("check", "--strict", "--json")
    assert refused.returncode == 1
    assert "--strict allows none" in refused.stderr
    kinds = {(one["level"], one["kind"]) for one in json.loads(refused.stdout)["findings"]}
    assert kinds == {("note", "upstream_not_configured"), ("warning", "no_upstream")}
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "upstreams: {one: {kind: apiany, base_url: 'https://a.test', model: m, prices: {per_image: '0.01'},"
        " credentials: [{key: 'env:ONE'}]}, two: {kind: apiany, base_url: 'https://b.test', model: m,"
        " credentials: [{key: 'env:TWO'}]}}\nmodels: {gpt-image-2: {upstreams: [one, two]}}\n"
    )
    passed = imagegate("check", "--strict", ONE="x", GATEWAY_CONFIG=str(config))
    assert passed.returncode == 0, passed.stderr
    assert f"note         {config}:1: upstreams.two: env:TWO is not set, so it is not configured" in passed.stdout


async def test_drift_is_read_from_redis(valkey: Valkey, redis: StoreClient) -> None:
    """What the workers counted of an upstream is a warning at its line."""
    book = DriftBook(redis)
    book.note("anyfast", "made", "size", "1024x1024 for 1536x1024")
    book.note("anyfast", "refused", None)
    await book.outbox.aclose()
    env = {"GATEWAY_REDIS_URL": valkey.url, "GATEWAY_KEY_PEPPER": SECRET, "GATEWAY_SIGNING_KEY": SECRET}
    told = json.loads(imagegate("check", "--json", **env, ANYFAST_API_KEY="x").stdout)
    made, refused = [one for one in told["findings"] if one["kind"] == "drift"]
    assert made["field"] == refused["field"] == "upstreams.anyfast"
    assert "made another size than promised, once" in made["message"]
    assert "refused a parameter that it did not name, once" in refused["message"]
    assert told["drift_unread"] is None


def test_away_redis_is_no_mistake() -> None:
    """Where Redis does not answer, the check says so and goes on."""
    env = {"GATEWAY_KEY_PEPPER": SECRET, "GATEWAY_SIGNING_KEY": SECRET}
    checked = imagegate("check", GATEWAY_REDIS_URL="redis://:hunter2@127.0.0.1:9", **env)
    assert checked.returncode == 0
    assert "drift        not known: see the finding about Redis" in checked.stdout
    assert "warning      Redis at redis://127.0.0.1:9 does not answer" in checked.stdout
    assert "hunter2" not in checked.stdout + checked.stderr
