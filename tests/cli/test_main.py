"""The command line, as a person or a script uses it: real processes where one starts or ends, and a real store."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.process.data_folder import DataFolder
from tests.conftest import Valkey
from tests.support.plans import SHIPPED
from tests.support.ports import free_port
from tests.support.processes import gateway, imagegate
from tests.support.shell import Shell, Typist

SECRET = "s" * 32


def test_keys_without_gateway(tmp_path: Path) -> None:
    """Keys are made and managed while no gateway runs; the server that was started for it is gone after."""
    where = ("--data-dir", str(tmp_path / "data"))
    # As a gateway leaves it that has never sold a picture.
    (tmp_path / "data" / "valkey").mkdir(parents=True)
    made = imagegate("keys", "create", "ana", "--team", "design", "--model", "gpt-image-2", *where)
    assert re.fullmatch(r"igw_\w{38}\n", made.stdout), made.stderr
    listed = json.loads(imagegate("keys", "list", "--json", *where).stdout)["data"]
    assert [(key["name"], key["team"], key["models"]) for key in listed] == [("ana", "design", ["gpt-image-2"])]
    assert imagegate("keys", "delete", listed[0]["id"], *where).returncode == 0
    assert not (tmp_path / "data" / "server.json").exists()


def test_keys_beside_gateway(tmp_path: Path) -> None:
    """Keys made while a gateway runs are in its own store, and still there at its next start."""
    where = ("--data-dir", str(tmp_path / "data"))
    with gateway(tmp_path / "data") as run:
        assert imagegate("keys", "create", "ana", *where).returncode == 0
        assert run.status("/readyz") == 200
        assert imagegate("keys", "show", "key_nope", *where).stderr.startswith("imagegate: There is no key of this id")
        run.end()
    names = [key["name"] for key in json.loads(imagegate("keys", "list", "--json", *where).stdout)["data"]]
    assert names == ["demo", "ana"]


def test_keys_in_outside_redis(tmp_path: Path, valkey: Valkey) -> None:
    """With GATEWAY_REDIS_URL the command opens that store, and refuses to use another pepper."""
    env = {"GATEWAY_REDIS_URL": valkey.url, "GATEWAY_KEY_PEPPER": SECRET, "GATEWAY_SIGNING_KEY": SECRET}
    where = ("--data-dir", str(tmp_path / "data"))
    assert imagegate("keys", "create", "ana", *where, **env).returncode == 0
    assert "ana" in imagegate("keys", "list", *where, **env).stdout
    refused = imagegate("keys", "list", *where, **env | {"GATEWAY_KEY_PEPPER": "t" * 32})
    assert refused.returncode == 1
    assert "another GATEWAY_KEY_PEPPER" in refused.stderr


NEEDS_STORE = [
    ("keys", "list"),
    ("keys", "create", "ana"),
    ("limits", "show", "--everyone"),
    ("operators", "create", "ana"),
    ("usage",),
    ("history",),
    ("changes",),
    ("credit", "--usd", "1", "--reason", "x", "--everyone"),
    ("holds",),
    ("teams",),
    ("audit",),
    ("upstreams",),
    ("webhooks",),
]


@pytest.mark.parametrize("words", NEEDS_STORE, ids=" ".join)
def test_wrong_folder_is_told(shell: Shell, tmp_path: Path, words: tuple[str, ...]) -> None:
    """In a folder where no gateway has run a command names the folder, and makes neither a store nor a key."""
    shell.env = {"GATEWAY_DATA_DIR": str(tmp_path / "elsewhere")}
    refused = shell.type(*words)
    assert refused.exit_code == 1
    assert f"There is no store in {tmp_path / 'elsewhere'}" in refused.stderr
    assert "--data-dir" in refused.stderr
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("words", [("check",), ("quote", "--demo")], ids=" ".join)
def test_reading_makes_no_folder(shell: Shell, tmp_path: Path, words: tuple[str, ...]) -> None:
    """A command that can do without a store works anywhere, and makes no folder either."""
    shell.env = {"GATEWAY_DATA_DIR": str(tmp_path / "elsewhere")}
    assert shell.type(*words).exit_code == 0
    assert not (tmp_path / "elsewhere").exists()


def test_changed_catalogue_is_told(shell: Shell, tmp_path: Path) -> None:
    """`check` and `quote` say that the running gateway still uses the catalogue of its start, and that only then."""
    config = tmp_path / "gateway.yaml"
    config.write_bytes(SHIPPED.read_bytes())
    folder = DataFolder(tmp_path / "data")
    folder.make()
    shell.env = {"GATEWAY_DATA_DIR": str(folder.path), "GATEWAY_CONFIG": str(config)}
    text = f"the gateway that runs in {folder.path} (process {os.getpid()})"
    with folder.announced():
        folder.record_catalogue(config)
        assert text not in shell.type("check").output + shell.type("quote", "--demo").output
        config.write_text(SHIPPED.read_text() + "\nunknown_fields: refuse\n")
        for words in (("check",), ("quote", "--demo")):
            assert text in shell.type(*words).output
            assert "restart it" in shell.type(*words).output
    assert text not in shell.type("check").output


def test_unknown_key_is_told(shell: Shell) -> None:
    """An id that no key has ends in a sentence and exit code 1."""
    refused = shell.type("keys", "show", "key_nope")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("imagegate: There is no key of this id")


def test_away_redis_is_told(typist: Typist) -> None:
    """A Redis that does not answer ends in a sentence, and shows no password."""
    env = {"GATEWAY_KEY_PEPPER": SECRET, "GATEWAY_SIGNING_KEY": SECRET}
    refused = typist.type(("keys", "list"), env | {"GATEWAY_REDIS_URL": "redis://:hunter2@127.0.0.1:9"})
    assert refused.exit_code == 1
    assert refused.stderr.startswith("imagegate: Redis is unavailable")
    assert "hunter2" not in refused.stderr


def test_wrong_settings_are_listed() -> None:
    """Wrong settings are listed in lines, not in a traceback, with exit code 2."""
    refused = imagegate("check", GATEWAY_PORT="x", GATEWAY_REDIS_URI="y")
    assert refused.returncode == 2
    assert [line.strip().split(":")[0] for line in refused.stderr.splitlines()[1:]] == [
        "GATEWAY_REDIS_URI",
        "GATEWAY_PORT",
    ]


def test_weak_admin_token_stops_the_start(typist: Typist) -> None:
    """Neither `serve` nor `check` goes on with a token that can be guessed where others reach the gateway."""
    for words in (("check",), ("serve", "--host", "0.0.0.0"), ("serve", "--demo")):
        host = "127.0.0.1" if "--host" in words else "0.0.0.0"
        refused = typist.type(words, {"GATEWAY_ADMIN_TOKEN": "changeme", "GATEWAY_HOST": host})
        assert refused.exit_code == 2
        assert "GATEWAY_ADMIN_TOKEN: a weak token" in refused.stderr
        assert "changeme" not in refused.stderr
    warned = typist.type(("check",), {"GATEWAY_ADMIN_TOKEN": "changeme"})
    assert warned.exit_code == 0
    assert "warning      GATEWAY_ADMIN_TOKEN: a weak token" in warned.stdout


def test_flag_beats_environment(typist: Typist) -> None:
    """What is typed wins over what is set."""
    told = typist.type(("check", "--data-dir", "/tmp/typed"), {"GATEWAY_DATA_DIR": "/tmp/set"}).stdout
    assert "/tmp/typed" in told


def test_healthcheck_tells_by_code(tmp_path: Path) -> None:
    """`healthcheck` is 0 when the gateway is ready, and 1 when none answers."""
    port = str(free_port())
    silent = imagegate("healthcheck", GATEWAY_PORT=port)
    assert silent.returncode == 1
    assert f"nothing listens on 127.0.0.1:{port}. Set GATEWAY_PORT" in silent.stderr
    with gateway(tmp_path / "data", "--demo", "--host", "0.0.0.0", "--port", port):
        assert imagegate("healthcheck", GATEWAY_PORT=port, GATEWAY_HOST="0.0.0.0").returncode == 0


def test_health_check_loads_no_gateway() -> None:
    """What a container runs twice a minute loads neither the server nor Redis's client, only its own command."""
    program = "import sys; from typer.testing import CliRunner; from gateway.cli.main import app"
    asked = f"{program}; CliRunner().invoke(app, ['healthcheck']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert "gateway.server.listener" in loaded
    assert not loaded & {
        "fastapi",
        "uvicorn",
        "redis",
        "httptools",
        "httpx",
        "gateway.catalogue.catalogue",
        "gateway.cli.keys",
    }


@pytest.mark.parametrize("words", [(), ("serve",), ("simulate",), ("check",), ("keys",), ("keys", "create")])
def test_help_has_examples(typist: Typist, words: tuple[str, ...]) -> None:
    """Every command explains itself."""
    told = typist.type((*words, "--help"), {})
    assert told.exit_code == 0
    assert "Usage: imagegate" in told.stdout


def test_version_is_told() -> None:
    """`--version` prints it."""
    assert re.fullmatch(r"imagegate \d+\.\d+\.\d+\n", imagegate("--version").stdout)
