"""A stage for gateways that die: one store, one folder of pictures, an heir that lives, and a judge of what is left."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from gateway.callers.key_store import KeyRecord
from gateway.dollars import parse_usd
from gateway.history.record import Record
from gateway.money.audit import DEADLINE_S, Audit, AuditReport
from gateway.store.client import CommandQueue, connect
from tests.support.crash_points import Crasher, Crashes
from tests.support.gateways import EDITS, ENV, GENERATIONS, OFFICIAL, SMALLEST, TASKS, TIMEOUTS, VARIANT, catalogue_of
from tests.support.ledgers import SECOND, Store
from tests.support.plain_pictures import mask, png
from tests.support.simulators import Simulator, wait_until
from tests.support.store_reader import read_records, with_keys, with_ledger

if TYPE_CHECKING:
    from tests.conftest import Valkey

LEASE_S = 3.0
"""Longer than a busy machine keeps a process waiting."""
CALL_S = 4.0
UPSTREAMS = ("anyfast", "anyfast-c", "apiany")
SIZES = {OFFICIAL: SMALLEST, VARIANT: SMALLEST, TASKS: "1024x1024"}
RETRY = {"x-stainless-retry-count": "1"}


class Stage:
    """Where it is played. Everybody has a key of its own, so that several plays can go on at once."""

    def __init__(self, crashes: Crashes, simulator: Simulator, store_url: str, folder: Path) -> None:
        self.simulator = simulator
        self.store_url = store_url
        self.folder = folder
        self._crashes = crashes
        self._started = 0
        self._client = httpx.Client(
            timeout=60, trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0)
        )

    def close(self) -> None:
        self._client.close()

    def log(self) -> str:
        """What the gateways have logged, those of earlier tests too."""
        return self._crashes.log_path.read_text()

    def start(
        self,
        point: str = "none",
        *,
        data: str = "data",
        lease_s: float = LEASE_S,
        call_s: float = CALL_S,
        keys: str = "",
        inherits: bool = True,
    ) -> Crasher:
        """A gateway that dies at the point. `keys` is put behind the vendors' keys, so that faults can choose it."""
        self._started += 1
        config = self.folder / f"{self._started}.yaml"
        timeouts = {"timeouts": TIMEOUTS | {"connect": 1.5, "call": call_s}}
        changes = {
            "accounting": {"lease": lease_s},
            "join": {"look_every": 0.2},
            "upstreams": dict.fromkeys(UPSTREAMS, timeouts),
        }
        config.write_text(yaml.safe_dump(catalogue_of(self.simulator.url, changes)))
        settings = {
            "config": config,
            "data_dir": self.folder / data,
            "storage_url": (self.folder / "pictures").as_uri(),
            "drain_s": 2,
        }
        env = {name: value + keys for name, value in ENV.items()}
        return self._crashes.start(point, settings, env, self.store_url, inherits=inherits)

    @contextmanager
    def living(self, **options: Any) -> Iterator[Crasher]:
        """A gateway that lives as long as it is needed."""
        with ExitStack() as stack:
            found = self.start(**options)
            stack.callback(found.end)
            yield found

    def new_key(self) -> tuple[KeyRecord, str]:
        return asyncio.run(with_keys(self.store_url, lambda keys: keys.create("test")))

    def ask(self, gateway: Crasher, secret: str, model: str, prompt: str, **more: Any) -> httpx.Response | None:
        """The answer, or None where the connection broke."""
        headers = {"authorization": f"Bearer {secret}", **more.pop("headers", {})}
        fields = {"model": model, "prompt": prompt, "size": SIZES[model]}
        try:
            if not more.pop("edits", False):
                return self._client.post(gateway.url + GENERATIONS, json=fields | more, headers=headers)
            files = [("image", png(600, 600)), ("mask", mask(600, 600))]
            return self._client.post(gateway.url + EDITS, data=fields, files=files, headers=headers)
        except httpx.TransportError:
            return None

    def bought(self, prompt: str) -> list[dict[str, Any]]:
        """The vendors' accepted submissions of a prompt."""
        return [one for one in self.simulator.book() if one["prompt"] == prompt]

    def paid(self, prompt: str) -> int:
        """What the vendors want for it, in µ$."""
        return sum(parse_usd(one["price_usd"]) for one in self.bought(prompt))

    def spent(self, key: str) -> Mapping[str, int]:
        """What a key has spent and is held for it, by amount; what is nothing is not there."""
        store = Store(self.store_url)
        try:
            return store.window(f"key:{key}", "total")
        finally:
            store.close()

    def settled(self, key: str) -> Mapping[str, int]:
        """What a key has spent, once nothing of it is held."""
        wait_until(lambda: not any("held" in amount for amount in self.spent(key)), "the last settlement", 30)
        return self.spent(key)

    def records(self, key: str) -> list[Record]:
        return asyncio.run(read_records(self.store_url, key=key))

    def settled_records(self, key: str) -> list[Record]:
        """What the history has of a key's tasks, without their repetitions, once no call is on its way."""

        def read() -> list[Record]:
            found = [record for record in self.records(key) if not record.is_joined]
            return found if all(call.state != "held" for one in found for call in one.calls) else []

        found: list[Record] = wait_until(read, "the record", 30)
        return found

    def is_inherited(self, key: str) -> bool:
        """Whether whoever began and whoever waited for the key's tasks is known to be dead, and all has an heir."""
        store = Store(self.store_url)
        try:
            now = int(store.command("TIME")[0]) * SECOND
            for name in store.command("KEYS", "{igw}:hold:*"):
                hold = store.fields(name)
                ends = float(store.command("ZSCORE", "{igw}:leases", hold.get("waits_on", "")) or 0)
                if hold["key"] == key and (ends > now or (hold["state"] == "open" and hold["fence"] == "1")):
                    return False
        finally:
            store.close()
        return True

    def ask_ledger(self, work: Callable[[Any], Any]) -> Any:
        return asyncio.run(with_ledger(self.store_url, work))

    def audit(self) -> AuditReport:
        async def run() -> AuditReport:
            redis, command_queue = connect(self.store_url), CommandQueue(self.store_url, deadline_s=DEADLINE_S)
            try:
                return await Audit(redis, command_queue).run()
            finally:
                await command_queue.aclose()
                await redis.aclose()

        return asyncio.run(run())

    def pictures(self) -> list[Path]:
        return [path for path in (self.folder / "pictures").rglob("img_*") if path.parent.name != "incoming"]


@pytest.fixture(scope="session")
def crashes() -> Iterator[Crashes]:
    made = Crashes()
    yield made
    made.close()


@pytest.fixture
def stage(crashes: Crashes, simulator: Simulator, lone_valkey: Valkey) -> Iterator[Stage]:
    lone_valkey.flush()
    folder = Path(tempfile.mkdtemp(prefix="igw-crashes-"))
    made = Stage(crashes, simulator, lone_valkey.url, folder)
    yield made
    made.close()
    shutil.rmtree(folder)


def gone(gateway: Crasher) -> None:
    """Return once it is dead."""
    wait_until(lambda: gateway.is_gone, "the end of the process", 20)
