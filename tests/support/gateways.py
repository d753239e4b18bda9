"""The whole gateway over TCP: the real application on a real Valkey, its upstreams played by the real simulator.

`gateway` is the ordinary one, `gateways.open(...)` one with changes to its catalogue or settings; the last few are kept
and shared. Each test begins with an empty store, an empty simulator and a key of its own.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from fastapi import FastAPI

from gateway.api.connection.protocol import protocol
from gateway.app import create_app, wire_limits
from gateway.callers.key_store import KeyRecord
from gateway.catalogue.vendors import find_offer
from gateway.dollars import parse_usd
from gateway.health.checks import HealthChecks
from gateway.health.condition import Condition
from gateway.history.record import Record
from gateway.ids import new_id
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import HeldCall, Scope, Spent, Standings
from gateway.process.settings import Settings
from gateway.server.worker import Server, server_config
from gateway.services import Services
from tests.support.catalogue_changes import at_home, merge
from tests.support.event_loop import run_here
from tests.support.simulators import Simulator, wait_until
from tests.support.store_reader import (
    SECRETS,
    read_conditions,
    read_records,
    read_task,
    read_tasks,
    set_epoch,
    with_keys,
    with_ledger,
)

if TYPE_CHECKING:
    from tests.conftest import Valkey

ENV = {"ANYFAST_API_KEY": "sim-direct", "ANYFAST_C_API_KEY": "sim-c", "APIANY_API_KEY": "sim-apiany"}

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"

OFFICIAL, VARIANT, TASKS = "anyfast/gpt-image-2", "anyfast/gpt-image-2-c", "apiany/gpt-image-2"
"""Models that are pinned to one upstream each; `gpt-image-2` may use all three, the variant first."""

KEPT = 6
"""Gateways that run on after their test. Each takes 0.3 % of a core while it waits."""

SMALLEST = "1024x640"
"""The least pixels a size may have, so the quickest to draw."""

TIMEOUTS = {"connect": 2, "call": 20, "task": 20, "poll": 1, "poll_every": 0.05, "collect": 5}
"""Seconds. A test of a time-out sets its own: a busy machine must not end a call of the others."""


@dataclass
class Gateway:
    """A gateway that serves. `key` is the secret of this test's own key, `record` what the store knows of it."""

    url: str
    app: FastAPI
    simulator: Simulator
    settings: Settings
    env: Mapping[str, str]
    store_url: str
    key: str = ""
    record: KeyRecord | None = None
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=20, trust_env=False, verify=False)

    @property
    def services(self) -> Services:
        return self.app.state.services

    @contextlib.asynccontextmanager
    async def inside(self) -> AsyncIterator[FastAPI]:
        """The same application once more, in the test's own loop, from its start to its drained end."""
        app = create_app(self.settings, store_url=self.store_url, secrets=SECRETS, env=self.env)
        async with app.router.lifespan_context(app):
            yield app

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, **rest: Any) -> httpx.Response:
        """One request with this test's key; `headers` are added to it."""
        return self.client.request(method, path, headers={**self.auth, **(headers or {})}, **rest)

    get = functools.partialmethod(request, "GET")
    post = functools.partialmethod(request, "POST")

    def generate(self, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx.Response:
        """A JSON generation of the smallest picture at the official upstream, unless the fields say otherwise."""
        return self.post(GENERATIONS, headers=headers, json=small(**fields))

    def edit(
        self, files: Any, headers: Mapping[str, str] | None = None, model: str = OFFICIAL, **fields: Any
    ) -> httpx.Response:
        """A multipart edit; values become text, as forms have it."""
        data = {"prompt": "a cat", "model": model} | {name: str(value) for name, value in fields.items()}
        return self.post(EDITS, headers=headers, data=data, files=files)

    def new_key(self, **options: Any) -> tuple[KeyRecord, str]:
        return run_here(with_keys(self.store_url, lambda keys: keys.create("test", **options)))

    def change_key(self, key_id: str, **values: Any) -> None:
        """Change a key, and have the gateway see it at once."""
        run_here(with_keys(self.store_url, lambda keys: keys.change(key_id, **values)))
        self.services.key_cache.forget()

    def rotate_key(self, key_id: str) -> str:
        """Give a key a new secret; the old one works on."""
        return run_here(with_keys(self.store_url, lambda keys: keys.rotate(key_id)))[1]

    def read_task(self, task_id: str) -> dict[str, Any]:
        """A task's record in the store."""
        return run_here(read_task(self.store_url, task_id))

    def task_records(self) -> list[dict[str, Any]]:
        return run_here(read_tasks(self.store_url))

    def ask_ledger(self, work: Callable[[Ledger], Any]) -> Any:
        """What the ledger answers to `work`, over a connection of its own."""
        return run_here(with_ledger(self.store_url, work))

    def conditions(self) -> dict[str, Condition]:
        """How its targets are, as the store knows it now."""
        return run_here(read_conditions(self.store_url, list(self.services.health.targets)))

    def check(self, label: str) -> None:
        """Have one credential checked now, as the process would by itself in its turn."""

        async def check() -> None:
            async with self.inside() as app:
                services: Services = app.state.services
                checks = HealthChecks(services.health, services.upstreams, services.new_spool, 60)
                await checks.check(services.health.targets[label])

        run_here(check())

    def set_limit(self, limit: str, value: int | None, scope: Scope | None = None) -> None:
        """Set a limit of this test's key, or of another scope: µ$ or a number."""
        assert self.record is not None
        whose = scope or Scope(key=self.record.id)
        self.ask_ledger(lambda ledger: ledger.set_limit(new_id("change"), whose, limit, value))

    def standings(self, key: str = "", team: str = "") -> Standings:
        return self.ask_ledger(lambda ledger: ledger.look(key, team))

    def spent(self) -> Spent:
        """Everything that was ever spent or is held."""
        (found,) = [one for one in self.standings().spent if one.scope == "everyone" and one.window == "total"]
        return found

    def calls(self, task_id: str) -> list[HeldCall]:
        """A task's paid calls, as the ledger knows them."""
        hold = self.ask_ledger(lambda ledger: ledger.show(task_id))
        return list(hold.calls)

    def booked(self) -> int:
        """The µ$ of the purchases that the simulator did not give back."""
        return sum(parse_usd(one["price_usd"]) for one in self.simulator.book() if not one["refunded"])

    def settle(self) -> None:
        """Return once no work runs, and every record and report is written."""
        wait_until(lambda: not self.services.running, "the end of the running work", 20)
        wait_until(lambda: not self.services.recorder.outbox.waiting, "the last record", 20)
        wait_until(lambda: not self.services.health.reports.waiting, "the last report", 20)

    def records(self) -> list[Record]:
        """This test's key's records, oldest first."""
        assert self.record is not None
        self.settle()
        return run_here(read_records(self.store_url, key=self.record.id))

    def leftovers(self) -> list[Path]:
        """Temporary files, and bytes that are still counted as under way."""
        self.settle()
        wait_until(lambda: self.services.in_flight.used == 0 and self.services.memory.used == 0, "the last byte's end")
        # A folder may go while it is looked at; `walk` passes over it, where `rglob` raises.
        return [Path(folder, name) for folder, _, names in os.walk(self.settings.data_dir / "spool") for name in names]

    def pictures(self) -> list[Path]:
        return [path for path in (self.settings.data_dir / "artifacts").rglob("*") if path.is_file()]


def small(**fields: Any) -> dict[str, Any]:
    """The fields of a generation that is quickly made."""
    return {"model": OFFICIAL, "prompt": "a cat", "size": SMALLEST, **fields}


def catalogue_of(simulator_url: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A catalogue with all three upstreams at the simulator, every time-out short; `changes` are merged into it."""

    def upstream(kind: str, model: str, key: str) -> dict[str, Any]:
        credential = {"key": f"env:{key}", "group": "direct"}
        url = f"{simulator_url}/{kind}"
        return {
            "kind": kind,
            "base_url": url,
            "model": model,
            "credentials": [credential],
            "timeouts": dict(TIMEOUTS),
            # Nobody but the test asks the vendors for anything.
            "health": {"check_every": None},
            "prices": find_offer(kind, model, "direct").example_prices.model_dump(exclude_none=True),
        }

    catalogue: dict[str, Any] = {
        "default_model": "gpt-image-2",
        "upstreams": {
            "anyfast": upstream("anyfast", "gpt-image-2", "ANYFAST_API_KEY"),
            "anyfast-c": upstream("anyfast", "gpt-image-2-c", "ANYFAST_C_API_KEY"),
            "apiany": upstream("apiany", "gpt-image-2", "APIANY_API_KEY"),
        },
        "models": {
            "gpt-image-2": {"upstreams": ["anyfast-c", "apiany", "anyfast"]},
            OFFICIAL: {"upstreams": ["anyfast"]},
            VARIANT: {"upstreams": ["anyfast-c"]},
            TASKS: {"upstreams": ["apiany"]},
        },
        "aliases": {"dall-e-3": {"model": "gpt-image-2", "response_format": "url"}},
        "limits": {"fetch_timeout": 5, "header_timeout": 2, "body_idle": 2, "answer_within": 15},
    }
    merged = merge(catalogue, changes or {})
    # Most tests say who is asked first by the order in which they name them.
    models = {name: {"strategy": "priority", **model} for name, model in merged["models"].items()}
    # A gateway that runs on would ask its vendors now and then, and be seen in other tests' logs.
    upstreams = {
        name: {**upstream, "health": {"check_every": None, **upstream.get("health", {})}}
        for name, upstream in merged["upstreams"].items()
    }
    return merged | {"models": models, "upstreams": upstreams}


@contextlib.contextmanager
def serve(
    simulator: Simulator,
    store_url: str,
    changes: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    wrap: Callable[[Any], Any] = lambda app: app,
) -> Iterator[Gateway]:
    """The gateway, within `wrap`, on a free port in a thread with its own loop; ended by the worker's own shutdown."""
    folder = Path(tempfile.mkdtemp(prefix="igw-served-"))
    config = folder / "gateway.yaml"
    config.write_text(yaml.safe_dump(catalogue_of(simulator.url, changes), sort_keys=False))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    loaded = Settings(**({"config": config, "data_dir": folder / "data", "drain_s": 5} | at_home(settings, url)))
    env = ENV if env is None else env
    app = create_app(loaded, store_url=store_url, secrets=SECRETS, env=env)
    server = Server(server_config(wrap(app), loaded, protocol(wire_limits(app))), app, None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="gateway")
    thread.start()
    app.state.serving = (server, thread)
    gateway = Gateway(url, app, simulator, loaded, env, store_url)
    try:
        wait_until(lambda: server.started, "the gateway's start")
        yield gateway
    finally:
        gateway.client.close()
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive(), "the gateway did not end"
        listener.close()
        shutil.rmtree(folder)


class Gateways:
    """Gateways that run, one for each set of changes."""

    def __init__(self, simulator: Simulator, valkey: Valkey) -> None:
        self.simulator = simulator
        self._valkey = valkey
        self._running: dict[str, tuple[Gateway, contextlib.ExitStack]] = {}

    def open(
        self, settings: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None, **changes: Any
    ) -> Gateway:
        """The gateway with these changes to its catalogue, to its settings and to the environment of its keys."""
        name = json.dumps([changes, settings, env], sort_keys=True, default=str)
        if name not in self._running:
            made = serve(self.simulator, self._valkey.url, changes, settings, env)
            stack = contextlib.ExitStack()
            self._running[name] = (stack.enter_context(made), stack)
        # The last used stands last.
        gateway, _ = self._running[name] = self._running.pop(name)
        # The store is empty again; what this gateway remembers of it would surprise the next test.
        gateway.services.key_cache.forget()
        gateway.services.wrong_keys.forget()
        gateway.services.health.forget()
        gateway.services.retries.forget()
        gateway.record, gateway.key = gateway.new_key()
        return gateway

    def be_known(self) -> None:
        """Let a store that was emptied between two tests be one that the running gateways know."""
        accepted = f"{new_id('epoch')} accepted {time.time_ns() // 1000}"
        run_here(set_epoch(self._valkey.url, accepted, [one.services.worker for one, _ in self._running.values()]))
        for gateway, _ in self._running.values():
            gateway.services.store_epoch.accept_reset(accepted)

    def settle(self) -> None:
        if any(gateway.services.running for gateway, _ in self._running.values()):
            self.simulator.reset()  # Without its faults the work ends soon.
        for gateway, _ in self._running.values():
            gateway.settle()

    def close(self, kept: int = 0) -> None:
        """End all but the last `kept` gateways."""
        ending = list(self._running)[: len(self._running) - kept]
        # All at once: each takes a moment to end.
        for name in ending:
            self._running[name][0].app.state.serving[0].should_exit = True
        for name in ending:
            self._running.pop(name)[1].close()


@pytest.fixture(scope="session")
def simulator_process() -> Iterator[Simulator]:
    simulator = Simulator()
    yield simulator
    simulator.close()


@pytest.fixture(scope="session")
def running_gateways(simulator_process: Simulator, valkey_server: Valkey) -> Iterator[Gateways]:
    running = Gateways(simulator_process, valkey_server)
    yield running
    running.close()


@pytest.fixture
def simulator(simulator_process: Simulator, running_gateways: Gateways) -> Simulator:
    """The stand-in vendors, with nothing in their book and no rule laid down."""
    running_gateways.settle()
    running_gateways.close(KEPT)  # Before the store is emptied: one that ends may still write to it.
    simulator_process.reset()
    return simulator_process


@pytest.fixture
def gateways(running_gateways: Gateways, simulator: Simulator, valkey: Valkey) -> Gateways:
    """Opens gateways with changes, over an empty store."""
    running_gateways.be_known()
    return running_gateways


@pytest.fixture
def gateway(gateways: Gateways) -> Gateway:
    """The gateway without changes."""
    return gateways.open()


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, which must be one in OpenAI's shape with a request id."""
    assert answer.headers.get("x-request-id"), "an answer without a request id"
    body = answer.json()
    assert set(body) == {"error"}, body
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    return error


def assert_refused(gateway: Gateway, answer: httpx.Response, status: int, param: str | None) -> str:
    """The answer is such a refusal, and nothing came of the request; its message."""
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (status, param), answer.text
    assert not gateway.simulator.log()
    assert not gateway.leftovers()
    assert not gateway.task_records()
    return error["message"]
