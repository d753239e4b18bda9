"""The supervisor, with real processes: what starts, what comes back, what ends, and what a kill -9 leaves."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.process.data_folder import LOCK_WAIT_S
from tests.conftest import Valkey
from tests.support.processes import Gateway, children, clean_environment, gateway, imagegate, is_alive, until
from tests.support.stopwatch import running_seconds

SECRET = "s" * 32
CANARY = "canary-4f1c9e7ab2d85306-9d2b71c0e4a8"


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a simulator of its own, for tests after which it still serves."""
    data = tmp_path_factory.mktemp("lasting") / "data"
    with gateway(data, GATEWAY_SIMULATOR_URL="", GATEWAY_ADMIN_TOKEN=CANARY) as run:
        yield run


def test_ready_gateway_answers(lasting: Gateway) -> None:
    """Once the banner is out the gateway is ready, and its processes are the supervisor's children."""
    assert lasting.status("/readyz") == 200
    assert {line.split()[0].rpartition("/")[2] for line in children(lasting.pid).values()} >= {"valkey-server"}
    assert (lasting.data / "gateway.pid").read_text() == f"{lasting.pid}\n"
    assert [path for path in lasting.data.rglob("*") if path.stat().st_mode & 0o077] == [], "open to others"


def test_ctrl_c_ends_every_child(tmp_path: Path) -> None:
    """Ctrl-C in the terminal ends everything, without a traceback and without leftovers."""
    with gateway(tmp_path / "data", "--demo", "--port", "0", "--workers", "2") as run:
        started = children(run.pid)
        assert len(started) == 3
        run.press_ctrl_c()
        assert run.process.wait(10) == 0
        assert not any(is_alive(pid) for pid in started)
        assert "Traceback" not in run.err
        assert '"error"' not in run.err
        assert [event for event in ("Starting", "Stopped") if f'"event":"{event}' in run.err] == ["Starting", "Stopped"]
    left = {path.name for path in (tmp_path / "data").iterdir()}
    assert left.isdisjoint({"gateway.pid", "server.json", "valkey.sock"})


def test_closed_terminal_ends_cleanly(tmp_path: Path) -> None:
    """A closed terminal ends everything with exit code 0."""
    with gateway(tmp_path / "data") as run:
        started = children(run.pid)
        assert run.end(signal.SIGHUP) == 0
        assert not any(is_alive(pid) for pid in started)


def test_signal_while_starting(tmp_path: Path) -> None:
    """A signal before the gateway is ready ends what was started so far."""
    run = Gateway(tmp_path / "data")
    try:
        worker = run.child("gateway.server.worker")
        server = run.child("valkey-server")
        assert run.end() == 0
        assert not is_alive(worker)
        assert not is_alive(server)
        assert "Traceback" not in run.err
    finally:
        run.close()


def test_worker_without_its_line_opens_nothing(tmp_path: Path) -> None:
    """A worker whose supervisor gives up before the store answers ends by itself, and touches no file."""
    reader, writer = os.pipe()
    os.close(writer)
    command = [sys.executable, "-m", "gateway.server.worker", "--fd", "0", "--begin-fd", str(reader)]
    env = clean_environment() | {"GATEWAY_DATA_DIR": str(tmp_path / "data")}
    try:
        done = subprocess.run(command, env=env, pass_fds=(reader,), capture_output=True, timeout=60, check=False)
    finally:
        os.close(reader)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_folder_of_the_start_is_not_imported(tmp_path: Path) -> None:
    """Started in a folder that has a package of the same name, no process of the gateway loads that package."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").write_text("raise SystemExit('a foreign package')")
    # It has a limit, since a worker that does not start is started again for ever.
    imagegate_command = str(Path(sys.executable).with_name("imagegate"))
    command = ["timeout", "60", imagegate_command, "serve", "--demo", "--port", "0", "--data-dir", "data"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        is_served = any("Ctrl-C stops" in line for line in process.stdout)
        process.terminate()
        assert is_served, process.stderr.read()


def test_killed_gateway_starts_again(tmp_path: Path) -> None:
    """kill -9 leaves no process, and the next start on the same folder and port is served within 10 s, keys kept.

    SIGTERM then ends everything with exit code 0.
    """
    with gateway(tmp_path / "data") as run:
        started = children(run.pid)
        key, port = run.demo_key, run.url.rpartition(":")[2]
        run.end(signal.SIGKILL)
        began = running_seconds()
        with gateway(tmp_path / "data", "--demo", "--port", port) as again:
            assert running_seconds() - began < 10
            assert again.demo_key == key
            assert again.status("/readyz") == 200
            assert not any(is_alive(pid) for pid in started)
            started = children(again.pid)
            assert again.end() == 0
            assert not any(is_alive(pid) for pid in started)


def test_orphaned_server_is_waited_for(tmp_path: Path) -> None:
    """A start waits for a server that outlives its killed gateway, and never opens its files beside it."""
    with gateway(tmp_path / "data") as run:
        server = run.child("valkey-server")
        os.kill(server, signal.SIGSTOP)
        run.end(signal.SIGKILL)
        again = Gateway(tmp_path / "data")
        try:
            until(lambda: not is_alive(run.pid))
            # Nothing may happen here, and nothing tells when it has not happened for long enough.
            time.sleep(0.5)
            assert children(again.pid) == {}
            os.kill(server, signal.SIGCONT)
            assert again.wait_ready().end() == 0
        finally:
            again.close()


def test_second_start_is_refused(lasting: Gateway) -> None:
    """A second gateway on the same folder is refused at once, and told who runs there and what to do."""
    began = time.monotonic()
    second = imagegate("serve", "--demo", "--port", "0", "--data-dir", str(lasting.data))
    # A start after a crash waits as long as that for the lock.
    assert time.monotonic() - began < LOCK_WAIT_S
    assert second.returncode == 1
    assert f"process {lasting.pid}" in second.stderr
    assert "--data-dir FOLDER, or GATEWAY_DATA_DIR=FOLDER" in second.stderr
    assert lasting.status("/readyz") == 200


def test_taken_port_is_refused(tmp_path: Path) -> None:
    """A taken port is refused before anything starts, with another port to try."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = imagegate("serve", "--demo", "--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use" in refused.stderr
    assert f"--port {port + 1}, or GATEWAY_PORT={port + 1}" in refused.stderr
    assert not (tmp_path / "data" / "valkey").exists()


def test_no_upstream_key_is_refused(tmp_path: Path) -> None:
    """Without a key and without --demo nothing is served: the variables are named, and nothing is simulated."""
    refused = imagegate("serve", "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert "ANYFAST_API_KEY, ANYFAST_C_API_KEY, APIANY_API_KEY" in refused.stderr
    assert "--demo" in refused.stderr


def test_real_key_is_never_simulated(tmp_path: Path) -> None:
    """With any upstream key set, --demo simulates nothing and says nothing of a simulator."""
    with gateway(tmp_path / "data", APIANY_API_KEY="k", IMAGEGATE_SIMULATED_BY="http://127.0.0.1:9") as run:
        assert "SIMULATOR" not in run.out
        worker = Path(f"/proc/{run.child('gateway.server.worker')}/environ").read_text().split("\0")
        assert not any(line.startswith("IMAGEGATE_SIMULATED_BY") for line in worker)


def test_demo_points_workers_at_simulator(lasting: Gateway) -> None:
    """Without a key, --demo tells the workers which simulator stands for every upstream."""
    assert "SIMULATOR" in lasting.out
    worker = Path(f"/proc/{lasting.child('gateway.server.worker')}/environ").read_text().split("\0")
    assert any(line.startswith("IMAGEGATE_SIMULATED_BY=http://127.0.0.1:") for line in worker)


def test_pasted_examples_save_pictures(lasting: Gateway, tmp_path: Path) -> None:
    """Both examples of the banner, pasted as they are, save a PNG that the simulator drew."""
    examples = {
        "bash": lasting.example("curl ", "  | python3"),
        sys.executable: lasting.example("import base64", "open("),
    }
    for program, text in examples.items():
        folder = tmp_path / Path(program).name
        folder.mkdir()
        subprocess.run([program, "-c", text], cwd=folder, check=True, timeout=30, env=clean_environment())
        assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_pasted_fault_moves_one_call(lasting: Gateway, tmp_path: Path) -> None:
    """The banner's last example makes one call fail, and another upstream serves its request."""
    (fault,) = re.findall(r"^curl .*/_faults .*$", lasting.out, re.MULTILINE)
    subprocess.run(["bash", "-c", fault], check=True, timeout=30, stdout=subprocess.DEVNULL)
    picture = lasting.example("curl ", "  | python3")
    subprocess.run(["bash", "-c", picture], cwd=tmp_path, check=True, timeout=30, env=clean_environment())
    assert (tmp_path / "picture.png").exists()
    shown = imagegate("history", "--most", "1", "--data-dir", str(lasting.data)).stdout.splitlines()[1].split("\t")
    assert len(shown[5].split()) == 2, shown


def test_failed_example_shows_error(lasting: Gateway, tmp_path: Path) -> None:
    """The pasted curl line shows an error as it came, and saves nothing."""
    text = lasting.example("curl ", "  | python3").replace(lasting.demo_key, "igw_wrong")
    shown = subprocess.run(
        ["bash", "-c", text], cwd=tmp_path, check=True, timeout=30, env=clean_environment(), capture_output=True
    )
    assert b"invalid_api_key" in shown.stdout
    assert shown.stderr == b""
    assert not (tmp_path / "picture.png").exists()


def test_killed_simulator_comes_back(lasting: Gateway, tmp_path: Path) -> None:
    """A killed simulator is started again at the address that the workers know; it and the store see no secret."""
    before = lasting.child("gateway.simulator")
    for child in (before, lasting.child("valkey-server")):
        assert CANARY not in Path(f"/proc/{child}/environ").read_text()
    os.kill(before, signal.SIGKILL)
    until(lambda: not is_alive(before))
    until(lambda: "The simulator ended (SIGKILL)" in lasting.err)
    text = lasting.example("curl ", "  | python3")
    until(lambda: _saves_picture(text, tmp_path))


def test_killed_server_comes_back(lasting: Gateway) -> None:
    """A killed Valkey is started again over the same files, and the keys in it work."""
    before = lasting.child("valkey-server")
    os.kill(before, signal.SIGKILL)
    until(lambda: not is_alive(before))
    until(lambda: lasting.status("/readyz") == 200)
    listed = imagegate("keys", "list", "--json", "--data-dir", str(lasting.data))
    assert [key["name"] for key in json.loads(listed.stdout)["data"]] == ["demo"]
    assert "The embedded server ended (SIGKILL)" in lasting.err


def test_killed_worker_comes_back(lasting: Gateway) -> None:
    """A killed worker is replaced, and the port answers again."""
    before = lasting.child("gateway.server.worker")
    os.kill(before, signal.SIGKILL)
    until(lambda: not is_alive(before))
    until(lambda: lasting.status("/healthz") == 200)
    assert lasting.child("gateway.server.worker") != before


def test_worker_killed_at_its_start_is_started_again(tmp_path: Path) -> None:
    """A worker that is killed while it starts, at the first start and later, is started again."""
    run = Gateway(tmp_path / "data")
    try:
        for word in ("before it was ready", "ended (SIGKILL)"):
            before = run.child("gateway.server.worker")
            os.kill(before, signal.SIGKILL)
            until(lambda: not is_alive(before))  # noqa: B023 (called at once)
            assert run.child("gateway.server.worker") != before
            run.wait_ready()
            assert word in run.err
        until(lambda: run.status("/readyz") == 200)
        assert run.end() == 0
    finally:
        run.close()


def test_wrong_environment_ends_first_start(tmp_path: Path) -> None:
    """A worker that can never start ends the gateway at its first start, with the reason and without another try."""
    refused = imagegate("serve", "--demo", "--port", "0", "--data-dir", str(tmp_path), GATEWAY_STORAGE_URL="ftp://x")
    assert refused.returncode == 1
    assert "GATEWAY_STORAGE_URL" in refused.stderr
    assert "starting it again" not in refused.stderr


def test_wrong_catalogue_is_refused(tmp_path: Path) -> None:
    """A mistake in the catalogue is refused with file and line before anything starts."""
    path = tmp_path / "gateway.yaml"
    path.write_text("upstreams: {}\nmodels: {}\n")
    refused = imagegate("serve", "--demo", "--data-dir", str(tmp_path / "data"), GATEWAY_CONFIG=str(path))
    assert refused.returncode == 2
    assert f"{path}:1:" in refused.stderr
    assert not (tmp_path / "data" / "valkey").exists()


def test_outside_redis_is_used(tmp_path: Path, valkey: Valkey) -> None:
    """With GATEWAY_REDIS_URL no server is started, and both secrets must be those the store was first used with."""
    env = {"GATEWAY_REDIS_URL": valkey.url, "GATEWAY_KEY_PEPPER": SECRET, "GATEWAY_SIGNING_KEY": SECRET}
    with gateway(tmp_path / "data", **env) as run:
        assert not any("valkey-server" in line for line in children(run.pid).values())
        assert run.status("/readyz") == 200
        lost = imagegate("keys", "list", "--data-dir", str(tmp_path / "data"))
        assert f"uses the Redis at {valkey.url}" in lost.stderr
        assert "GATEWAY_REDIS_URL" in lost.stderr
        assert "kill" not in lost.stderr
        assert run.end() == 0
    for name in ("GATEWAY_KEY_PEPPER", "GATEWAY_SIGNING_KEY"):
        other = env | {name: "t" * 32}
        wrong = imagegate("serve", "--demo", "--port", "0", "--data-dir", str(tmp_path / "b"), **other)
        assert wrong.returncode == 1
        assert f"another {name}" in wrong.stderr
        assert "Traceback" not in wrong.stderr


def test_evicting_redis_is_refused(tmp_path: Path, valkey: Valkey) -> None:
    """A Redis that throws entries away when full is refused, with the setting to change."""
    env = {"GATEWAY_REDIS_URL": valkey.url, "GATEWAY_KEY_PEPPER": SECRET, "GATEWAY_SIGNING_KEY": SECRET}
    with valkey.evicting():
        refused = imagegate("serve", "--demo", "--port", "0", "--data-dir", str(tmp_path), **env)
    assert refused.returncode == 1
    assert "maxmemory-policy to noeviction" in refused.stderr


def test_deep_folder_still_works(tmp_path: Path) -> None:
    """A folder too deep for a socket's name is served by a socket elsewhere, which is removed at the end."""
    data = tmp_path / ("d" * 60) / ("e" * 60)
    with gateway(data) as run:
        where = Path(json.loads((data / "server.json").read_text())["socket"])
        assert data not in where.parents
        assert where.parent.stat().st_mode & 0o777 == 0o700
        assert run.status("/readyz") == 200
        assert imagegate("keys", "list", "--data-dir", str(data)).returncode == 0
        assert run.end() == 0
        assert not where.parent.exists()


def test_second_signal_abandons(tmp_path: Path) -> None:
    """A second signal ends a drain that would take long, even of a worker that hears no signal at all."""
    with gateway(tmp_path / "data", GATEWAY_DRAIN_S="60") as run:
        worker, server = run.child("gateway.server.worker"), run.child("valkey-server")
        os.kill(worker, signal.SIGSTOP)
        run.process.send_signal(signal.SIGTERM)
        until(lambda: "Ctrl-C again abandons" in run.err)
        second = imagegate("serve", "--demo", "--port", "0", "--data-dir", str(tmp_path / "data"))
        assert re.search(r"is stopping, and ends within [67]\d s", second.stderr), second.stderr
        assert f"kill {run.pid}" not in second.stderr
        # The store lives until the last worker is gone: a late picture must still be recorded.
        assert is_alive(server)
        assert run.end() == 0
        assert "abandoned" in run.err
        assert "Traceback" not in run.err
        assert not is_alive(worker)


def _saves_picture(example: str, folder: Path) -> bool:
    subprocess.run(["bash", "-c", example], cwd=folder, check=False, timeout=30, env=clean_environment())
    return (folder / "picture.png").exists()
