"""The contestants of the comparison: imagegate with everything on, and the usual alternatives.

Each is started as its own documentation says, with one worker, before the same upstream. Never takes a key or a setting
from the environment.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from bench import tree
from bench.processes import ROOT, STOP_S, BenchError, environment, port_in, read_until
from gateway.process.children import spawn, stop
from gateway.store import embedded

PEERS = ROOT / ".build" / "peers"
LITELLM, PORTKEY = "1.106.2", "1.15.2"
MODEL = "gpt-image-2"

_START_S = 90.0

_CATALOGUE = """
default_model: {model}
upstreams:
  bench:
    kind: openai
    base_url: {url}
    model: {model}
    prices: {{per_image: "0.001"}}
    credentials: [{{key: env:BENCH_KEY}}]
models:
  {model}: {{upstreams: [bench]}}
limits: {{{limits}}}
"""
_LIMITS = ("--usd-month", "100000", "--images-day", "10000000", "--requests-per-minute", "1000000")


@dataclass(frozen=True)
class Contestant:
    """A running contestant. `pids` are the measured processes, `aside` those measured separately."""

    name: str
    version: str
    port: int
    pids: tuple[int, ...]
    headers: dict[str, str] = field(default_factory=dict)
    aside: tuple[int, ...] = ()
    health: str = "/healthz"


_WORKERS = (b"gateway.server.worker", b"gateway.worker")
"""The module of a worker process, today and before the folders."""

Opener = Callable[[str], AbstractContextManager[Contestant]]
"""Starts one before the upstream at a URL."""


@contextmanager
def imagegate(
    url: str, *, workers: int = 1, limits: str = "", python: str = sys.executable, name: str = "imagegate"
) -> Iterator[Contestant]:
    """With keys, limits on the key, its team and everyone, the ledger, task records and stored pictures.

    `python` may be that of another checkout's environment, which is measured under `name`.
    """
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as place:
        folder = Path(place)
        (folder / "catalogue.yaml").write_text(_CATALOGUE.format(model=MODEL, url=url, limits=limits))
        env = environment(
            {
                "GATEWAY_CONFIG": str(folder / "catalogue.yaml"),
                "GATEWAY_DATA_DIR": str(folder / "data"),
                "GATEWAY_WORKERS": str(workers),
                "GATEWAY_LOG_LEVEL": "info",
                "BENCH_KEY": "sk-upstream",
            }
        )
        # It would lead to this checkout's gateway, whatever `python` has.
        del env["PYTHONPATH"]
        # -P: the module comes from the environment, not from the folder in which the benchmark runs.
        command = [python, "-P", "-m", "gateway"]
        with _running("imagegate", [*command, "serve", "--port", "0"], env, folder) as process:
            port = port_in(read_until(process, "http://"))
            key = _ask_cli([*command, "keys", "create", "bench", "--team", "bench", "--json", *_LIMITS], env)
            for whose in (["--team", "bench"], ["--everyone"]):
                _ask_cli([*command, "limits", "set", *whose, *_LIMITS, "--json"], env)
            pids = tree.family(process.pid)
            own = tuple(pid for pid in pids if any(word in tree.words(pid) for word in _WORKERS))
            aside = tuple(pid for pid in pids if b"valkey" in tree.words(pid))
            secret = json.loads(key)["key"]
            version = metadata.version("imagegate")
            yield Contestant(name, version, port, own, {"Authorization": f"Bearer {secret}"}, aside)


@contextmanager
def nginx(url: str) -> Iterator[Contestant]:
    """A plain reverse proxy: no key, no limit, no record. One worker process."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    found = subprocess.run([program, "-v"], capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as name:
        port = _free_port()
        Path(name, "nginx.conf").write_text(
            f"worker_processes 1; daemon off; pid {name}/pid; error_log stderr error; user root;"
            "events { worker_connections 16384; }"
            f"http {{ access_log off; client_body_temp_path {name}/body; proxy_temp_path {name}/proxy;"
            f" fastcgi_temp_path {name}/f; uwsgi_temp_path {name}/u; scgi_temp_path {name}/s;"
            " client_max_body_size 0; proxy_read_timeout 600s; keepalive_requests 1000000;"
            f" server {{ listen 127.0.0.1:{port} backlog=16384; location / {{ proxy_pass {url};"
            " proxy_buffering off; proxy_request_buffering off; proxy_http_version 1.1; }"
            ' location = /healthz { return 200 "{}"; } } }'
        )
        with _running(
            "nginx", [program, "-c", f"{name}/nginx.conf", "-e", "stderr"], dict(os.environ), Path(name)
        ) as one:
            _await_port(port, one)
            version = re.sub(r".*/", "", (found.stderr or found.stdout).strip())
            yield Contestant("nginx", version, port, tuple(tree.family(one.pid)))


@contextmanager
def litellm(url: str) -> Iterator[Contestant]:
    """One uvicorn worker with a master key, without a database: no quotas, no records."""
    program = PEERS / "litellm" / "bin" / "litellm"
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as name:
        port = _free_port()
        config = {
            "model_list": [
                {
                    "model_name": MODEL,
                    "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "sk-upstream"},
                    "model_info": {"mode": "image_generation"},
                }
            ],
            "general_settings": {"master_key": "sk-bench"},
            "litellm_settings": {"request_timeout": 600, "num_retries": 0, "telemetry": False},
        }
        Path(name, "config.yaml").write_text(json.dumps(config))
        env = environment({"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True"})
        words = [str(program), "--config", f"{name}/config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        with _running("litellm", [*words, "--num_workers", "1"], env, Path(name)) as process:
            _await_port(port, process)
            yield Contestant(
                "LiteLLM",
                LITELLM,
                port,
                tuple(tree.family(process.pid)),
                {"Authorization": "Bearer sk-bench"},
                health="/health/liveliness",
            )


@contextmanager
def portkey(url: str) -> Iterator[Contestant]:
    """The gateway as its package starts it: one Node process, no quotas, no records."""
    program = PEERS / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as name:
        # Without the switch it serves its console beside the API; with the variable it allows a loopback upstream.
        env = environment({"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"})
        words = ["node", str(program), f"--port={port}", "--headless"]
        with _running("portkey", words, env, Path(name)) as process:
            _await_port(port, process)
            headers = {
                "Authorization": "Bearer sk-bench",
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": f"{url}/v1",
            }
            yield Contestant("Portkey", PORTKEY, port, tuple(tree.family(process.pid)), headers, health="/")


@contextmanager
def probe(url: str) -> Iterator[Contestant]:
    """The least that a proxy with evidence can do, on uvicorn with a Valkey of its own."""
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as name:
        folder, port = Path(name), _free_port()
        for each in ("files", "store"):
            (folder / each).mkdir()
        store = embedded.launch(folder / "store", folder / "v.sock")
        try:
            words = [sys.executable, "-m", "bench.probe", str(port), url, str(folder / "v.sock"), str(folder / "files")]
            with _running("probe", words, environment({}), folder) as process:
                _await_port(port, process)
                yield Contestant("probe", "-", port, (process.pid,), aside=(store.pid,))
        finally:
            stop(store, STOP_S)


ALL: dict[str, Opener] = {
    "imagegate": imagegate,
    "probe": probe,
    "nginx": nginx,
    "litellm": litellm,
    "portkey": portkey,
}


@contextmanager
def _running(name: str, words: list[str], env: Mapping[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = folder / "log"
    with log.open("wb") as errors:
        out = subprocess.PIPE if name == "imagegate" else errors
        process = spawn(words, dies_by=9, env=env, stdout=out, stderr=errors)
    try:
        yield process
        if process.poll() is not None:
            raise BenchError(f"{name} ended while it was measured, with {process.returncode}")
    except BenchError as error:
        raise BenchError(f"{error}\n{log.read_text(errors='replace')[-3000:]}") from None
    finally:
        stop(process, STOP_S)


def _ask_cli(words: list[str], env: Mapping[str, str]) -> str:
    done = subprocess.run(words, env=dict(env), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(words[2:])}: {done.stderr[-500:]}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise BenchError(f"it ended at its start, with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise BenchError("it did not listen in time")
