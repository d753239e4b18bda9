"""Data that revision 22468c6 wrote, an embedded store and a Redis, opened by this one. See `tests/data/README.md`."""

import contextlib
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.process.children import stop
from gateway.store.embedded import ask, find_binary
from tests.support.processes import gateway, until
from tests.support.shell import Typist

DATA = Path(__file__).parent / "data"
DAY = ("--since", "2026-11-30", "--until", "2026-12-01")
"""The day on which the data was written."""

VENDOR_KEYS = {"ANYFAST_API_KEY": "never-sent", "APIANY_API_KEY": "never-sent"}
ADMIN = "/admin/api/v1"
ADMIN_TOKEN = "pinned-m4Vq8sXw2LtY6bNc9Hf3"


@dataclass(frozen=True)
class Pinned:
    """A copy of the data: its folder, the environment that names it, and the facts that it must still have."""

    folder: Path
    env: dict[str, str]
    facts: dict[str, Any]
    typist: Typist

    def read(self, *command: str) -> Any:
        """The document that a command prints as JSON; of a list its entries."""
        done = self.typist.type((*command, "--json", "--data-dir", str(self.folder)), self.env)
        assert done.exit_code == 0, done.stderr
        document = json.loads(done.stdout)
        return document["data"] if document.get("object") == "list" else document

    @contextlib.contextmanager
    def served(self) -> Iterator[httpx.Client]:
        """The gateway over this data; no vendor answers it."""
        with (
            gateway(self.folder, "--port", "0", GATEWAY_ADMIN_TOKEN=ADMIN_TOKEN, **self.env) as run,
            httpx.Client(base_url=run.url, timeout=20, trust_env=False, verify=False) as client,
        ):
            yield client
            assert run.end() == 0

    def auth(self, key: str, secret: str = "secret") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.facts['keys'][key][secret]}"}


@contextlib.contextmanager
def redis_of(dump: Path) -> Iterator[str]:
    """A server of the operator's own that has read the dump; its URL."""
    with tempfile.TemporaryDirectory(prefix="igw-") as name:
        folder = Path(name)
        shutil.copy(dump, folder / "dump.rdb")
        options = {"port": "0", "unixsocket": str(folder / "s"), "dir": name, "save": "", "appendonly": "no"}
        words = [word for option, value in options.items() for word in (f"--{option}", value)]
        process = subprocess.Popen([find_binary(), *words], stdout=subprocess.DEVNULL)
        try:
            until(lambda: ask(folder / "s", b"PING\r\n").startswith(b"+PONG"))
            yield f"unix://{folder / 's'}"
        finally:
            stop(process, 5)


@contextlib.contextmanager
def copied(kind: str, folder: Path, typist: Typist) -> Iterator[Pinned]:
    """A copy of the data, in the embedded store or in a Redis."""
    shutil.copytree(DATA / kind, folder, ignore=shutil.ignore_patterns("dump.rdb"))
    facts = json.loads((DATA / f"{kind}.json").read_text())
    env = VENDOR_KEYS | {"GATEWAY_CONFIG": str(DATA / "gateway.yaml")}
    if kind == "embedded":
        yield Pinned(folder, env, facts, typist)
    else:
        with redis_of(DATA / "redis" / "dump.rdb") as url:
            yield Pinned(folder, env | facts["env"] | {"GATEWAY_REDIS_URL": url}, facts, typist)


@pytest.fixture(params=["embedded", "redis"])
def pinned(request: pytest.FixtureRequest, tmp_path: Path, typist: Typist) -> Iterator[Pinned]:
    """A copy for one test."""
    with copied(request.param, tmp_path / "data", typist) as made:
        yield made


@dataclass(frozen=True)
class Opened:
    """A gateway over a copy that tests share."""

    facts: dict[str, Any]
    client: httpx.Client
    pinned: Pinned


@pytest.fixture(scope="module", params=["embedded", "redis"])
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, typist: Typist
) -> Iterator[Opened]:
    """A gateway that serves a copy."""
    with copied(request.param, tmp_path_factory.mktemp("pinned") / "data", typist) as made, made.served() as client:
        yield Opened(made.facts, client, made)


def short(record: dict[str, Any]) -> tuple[Any, ...]:
    """The fields of a record that never change."""
    calls = tuple((call["target"], call["state"], call["usd"]) for call in record["calls"])
    return record["task"], record["status"], record["n_delivered"], record["usd_settled"], calls


def test_books_are_as_they_were_written(pinned: Pinned) -> None:
    """The audit agrees; usage, history, limits, holds, webhooks and the log of changes are those of the day."""
    audit = pinned.read("audit")
    assert (audit["differences"], audit["spending_closed"]) == ([], False)
    assert [audit[count] for count in ("tasks", "sums", "entries")] == [
        pinned.facts["audit"][count] for count in ("tasks", "sums", "entries")
    ]
    assert pinned.read("usage", *DAY)["total"] == pinned.facts["usage"]["total"] | {"usd_disputed": "0.000000"}
    assert sorted(map(short, pinned.read("history", *DAY))) == sorted(map(short, pinned.facts["history"]))
    assert len(pinned.read("changes", *DAY[:2])) == len(pinned.facts["changes"])
    assert [hold["task"] for hold in pinned.read("holds")] == [pinned.facts["tasks"]["open"]["id"]]
    assert [one["id"] for one in pinned.read("webhooks")] == [one["id"] for one in pinned.facts["webhooks"]]
    # Of the windows only the total never begins anew.
    limits = pinned.read("limits", "show", "--key", pinned.facts["keys"]["ana"]["id"])["standing"]
    assert {(one["scope"], one["limit"], one["ceiling"]) for one in limits} == {
        (one["scope"], one["name"], one["limit"]) for one in pinned.facts["limits"]
    }
    assert {(one["scope"], one["used"], one["left"]) for one in limits if one["limit"] == "usd_total"} == {
        (one["scope"], one["used"], one["left"]) for one in pinned.facts["limits"] if one["name"] == "usd_total"
    }


def test_secrets_open_what_they_opened(opened: Opened) -> None:
    """Keys work, a rotated one by both secrets, a disabled one does not; operators have their roles."""
    client, auth = opened.client, opened.pinned.auth
    for name, key in opened.facts["keys"].items():
        answer = client.get("/v1/key", headers=auth(name))
        assert answer.status_code == (200 if key["works"] else 403), answer.text
        assert not key["works"] or answer.json()["id"] == key["id"]
    assert client.get("/v1/key", headers=auth("dora", "former")).status_code == 200
    for operator in opened.facts["operators"].values():
        headers = {"Authorization": f"Bearer {operator['token']}"}
        assert client.get(f"{ADMIN}/keys", headers=headers).status_code == 200
        made = client.post(f"{ADMIN}/keys", headers=headers, json={"name": "new"})
        assert made.status_code == (201 if operator["role"] == "admin" else 403), made.text


def test_pictures_and_tasks_are_served(opened: Opened) -> None:
    """Each link answers the bytes that it answered first, and each task has the end that it had."""
    client, facts = opened.client, opened.facts
    for picture in facts["pictures"]:
        assert hashlib.sha256(client.get(picture["path"]).content).hexdigest() == picture["sha256"]
    for name, task in facts["tasks"].items():
        if name != "open":
            told = client.get(f"/v1/tasks/{task['id']}", headers=opened.pinned.auth(task["key"])).json()
            assert told["status"] == ("failed" if task["error"] else "succeeded")
            assert (told["error"] or {}).get("code") == (task["error"] or {}).get("code")
            assert len((told["result"] or {}).get("data", ())) == len(
                {one["path"] for one in facts["pictures"] if one["task"] == name}
            )


@pytest.mark.slow
def test_open_ticket_comes_to_an_end(pinned: Pinned) -> None:
    """A ticket whose vendor does not answer is adopted and charged as presumed, and the audit agrees."""
    catalogue = pinned.folder.parent / "gateway.yaml"
    text = (DATA / "gateway.yaml").read_text()
    catalogue.write_text(text.replace("task: 30", "task: 2").replace("accounting: {", "accounting: {lease: 1, "))
    pinned.env["GATEWAY_CONFIG"] = str(catalogue)
    with pinned.served():
        until(lambda: pinned.read("holds") == [], within=60)
        until(lambda: pinned.read("usage", *DAY)["total"]["usd"] == "0.330000", within=15)
    assert pinned.facts["usage"]["total"]["usd"] == "0.300000"
    assert pinned.read("audit")["differences"] == []
