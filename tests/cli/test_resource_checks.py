"""`imagegate check` finds what is wrong with Redis and with the storage of pictures, and says what would be right."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.resource_checks import check_storage
from gateway.process.settings import Settings
from gateway.store import embedded
from gateway.store.client import StoreClient
from tests.conftest import Valkey
from tests.support.shell import Shell

pytestmark = pytest.mark.quiet_store


def _require_password(socket: Path, shell: Shell) -> None:
    assert embedded.ask(socket, b"CONFIG SET requirepass right\r\n") == b"+OK\r\n"


def _send_wrong_password(socket: Path, shell: Shell) -> None:
    _require_password(socket, shell)
    shell.env["GATEWAY_REDIS_URL"] = f"unix://:wrong@{socket}"


def _take_other_pepper(socket: Path, shell: Shell) -> None:
    assert shell.type("keys", "list").exit_code == 0
    shell.env["GATEWAY_KEY_PEPPER"] = "t" * 32


def _take_other_signing_key(socket: Path, shell: Shell) -> None:
    key = shell.ask("keys", "create", "a")["id"]
    assert shell.type("keys", "webhook-secret", key).exit_code == 0
    shell.env["GATEWAY_SIGNING_KEY"] = "t" * 32


def _evict(socket: Path, shell: Shell) -> None:
    assert embedded.ask(socket, b"CONFIG SET maxmemory-policy allkeys-lru\r\n") == b"+OK\r\n"


def _drop_log(socket: Path, shell: Shell) -> None:
    assert embedded.ask(socket, b"CONFIG SET appendonly no\r\n") == b"+OK\r\n"


def _limit_user(socket: Path, shell: Shell) -> None:
    assert embedded.ask(socket, b"ACL SETUSER low on >pw ~* +get\r\n") == b"+OK\r\n"
    shell.env["GATEWAY_REDIS_URL"] = f"unix://low:pw@{socket}"


def _be_away(socket: Path, shell: Shell) -> None:
    shell.env["GATEWAY_REDIS_URL"] = "redis://:hunter2@127.0.0.1:9"


@pytest.fixture
def healed(valkey: Valkey) -> Iterator[Valkey]:
    yield valkey
    embedded.ask(valkey.socket, b"AUTH right\r\nCONFIG SET requirepass ''\r\n")
    for line in ("CONFIG SET maxmemory-policy noeviction", "CONFIG SET appendonly yes", "ACL DELUSER low"):
        embedded.ask(valkey.socket, f"{line}\r\n".encode())


@pytest.mark.parametrize(
    ("spoil", "level", "words"),
    [
        (
            _require_password,
            "error",
            "wants a password, and GATEWAY_REDIS_URL has none. Write it as redis://:PASSWORD@",
        ),
        (_send_wrong_password, "error", "refuses the user name or the password in GATEWAY_REDIS_URL"),
        (_take_other_pepper, "error", "another GATEWAY_KEY_PEPPER"),
        (_take_other_signing_key, "error", "another GATEWAY_SIGNING_KEY"),
        (_evict, "error", "Set its maxmemory-policy to noeviction"),
        (_limit_user, "error", "Allow its user all commands on all keys"),
        (_drop_log, "warning", "keeps no append-only file (appendonly no)"),
        (_be_away, "warning", "does not answer"),
    ],
)
def test_faults_of_redis(
    shell: Shell, healed: Valkey, spoil: Callable[[Path, Shell], None], level: str, words: str
) -> None:
    """A Redis that cannot hold money, or does not let us in, is a finding that says what to change."""
    spoil(healed.socket, shell)
    done = shell.type("check")
    lines = [line for line in done.stdout.splitlines() if line.startswith((level, "error"))]
    (line,) = [line for line in lines if "no upstream is configured" not in line]
    assert words in line
    assert line.startswith(level)
    assert done.exit_code == (1 if level == "error" else 0), done.output
    assert "hunter2" not in done.output
    assert "Traceback" not in done.output


async def test_check_leaves_a_new_store_alone(shell: Shell, redis: StoreClient) -> None:
    """A check of a new store neither claims it for these secrets nor writes anything else."""
    assert shell.type("check").exit_code == 0
    assert await redis.dbsize() == 0


class _Bucket(http.server.BaseHTTPRequestHandler):
    """Answers each upload with the status in its path's first part."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(int(self.path.split("/")[1].removeprefix("b")))
        self.send_header("content-length", "0")
        self.send_header("etag", '"1"')
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


KEY = "&region=x&access_key_id=a&secret_access_key=hunter2"


@pytest.mark.parametrize(
    ("url", "level", "words"),
    [
        ("s3:bucket", "error", "a storage URL starts with s3://, gs://, az:// or file://"),
        ("ftp://host/x", "error", "a storage URL starts with s3://, gs://, az:// or file://"),
        ("file://elsewhere/x", "error", "needs an absolute path: file:///srv/pictures"),
        ("s3://b403?endpont=x" + KEY, "error", "cannot be opened; its options: endpont"),
        ("s3://b403?endpoint={endpoint}" + KEY, "error", "refuses the credentials"),
        ("s3://b404?endpoint={endpoint}" + KEY, "error", "there is no such bucket"),
        ("s3://b200?endpoint=http://127.0.0.1:9" + KEY, "warning", "does not answer"),
        ("s3://b200?endpoint={endpoint}" + KEY, None, ""),
        ("file://{folder}/file/x", "error", "/file is no folder"),
        ("file:///proc/imagegate", "error", "cannot be made in /proc"),
        ("file:///proc", "error", "cannot be written"),
        ("file://{folder}/new/deep", None, ""),
    ],
)
def test_faults_of_the_storage(tmp_path: Path, endpoint: str, url: str, level: str | None, words: str) -> None:
    """A storage that cannot take pictures is a finding that names its variable, and never its secret."""
    (tmp_path / "file").touch()
    given = url.format(endpoint=endpoint, folder=tmp_path)
    found = list(check_storage(Settings(data_dir=tmp_path / "data", storage_url=given), 60))
    assert [one.level for one in found] == ([level] if level else [])
    assert all(words in one.text and "GATEWAY_STORAGE_URL" in one.text for one in found)
    assert not any("hunter2" in one.text for one in found)
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "data").exists()
