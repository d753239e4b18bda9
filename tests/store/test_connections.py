"""Connections: a socket whose name needs care, TLS that is checked, and servers that are the right ones no longer."""

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.process.children import stop
from gateway.server.store_checks import check_store
from gateway.store import embedded
from gateway.store.client import StoreClient, StoreUnavailable, connect
from tests.conftest import Valkey
from tests.support.gateways import SECRETS, Simulator, serve
from tests.support.redis_fleets import tls_door

pytestmark = pytest.mark.quiet_store

ROOT = Path(__file__).parents[2]
PEM = Path(__file__).with_name("localhost.test.pem")


async def test_socket_with_odd_name_is_reached() -> None:
    """A socket is reached whatever signs its path has."""
    folder = Path(tempfile.mkdtemp(prefix="igw 50%3F#?"))
    process = embedded.launch(folder, folder / "s")
    await embedded.wait_ready(process, folder / "s")
    client = connect(embedded.url_of(folder / "s"))
    assert await client.set("a", "1")
    await client.aclose()
    stop(process, 5)
    shutil.rmtree(folder)


@pytest.fixture
async def tls_port(valkey: Valkey) -> AsyncIterator[int]:
    async with tls_door(valkey.socket, PEM) as port:
        yield port


@pytest.mark.parametrize(
    "url",
    [
        "rediss://localhost:{port}/0?ssl_ca_certs={pem}",
        "rediss://127.0.0.1:{port}/0?ssl_ca_certs={pem}&ssl_check_hostname=no",
        "rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none",
    ],
)
async def test_tls_server_is_used(url: str, tls_port: int) -> None:
    """A server behind TLS is used with its own authority, with or without its name, or unchecked on request."""
    client = connect(url.format(port=tls_port, pem=PEM))
    assert await client.incrby("n", 5) == 5
    assert await client.get("n") == "5"
    await client.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "rediss://localhost:{port}",
        "rediss://127.0.0.1:{port}?ssl_ca_certs={pem}",
        "rediss://localhost:{port}?ssl_ca_certs=/nowhere.pem",
        "redis://localhost:{port}",
    ],
)
async def test_unproven_server_is_refused(url: str, tls_port: int) -> None:
    """A certificate of an unknown authority or of another name, and no TLS where it is needed, end in an outage."""
    client = connect(url.format(port=tls_port, pem=PEM), deadline_s=0.5)
    with pytest.raises(StoreUnavailable):
        await client.ping()
    await client.aclose()


def test_documented_rights_are_enough(simulator: Simulator, valkey: Valkey) -> None:
    """A user with the rights that the documents name, and no more, serves a whole gateway."""
    rights = re.search(r"`(~\{igw\}[^`]*)`", (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"))
    assert rights is not None
    line = f"ACL SETUSER gateway reset on >secret {rights[1]}"
    assert embedded.ask(valkey.socket, f"{line}\r\n".encode()) == b"+OK\r\n"
    url = f"unix://gateway:secret@{valkey.socket}"
    asyncio.run(check_store(url, SECRETS, wait_s=1))
    with serve(simulator, url) as gateway:
        gateway.record, gateway.key = gateway.new_key(team="design")
        gateway.set_limit("usd_total", 1_000_000)
        assert gateway.generate().status_code == 200
        gateway.settle()
        assert gateway.spent().usd_posted == gateway.booked()
        assert gateway.get("/v1/key").status_code == 200
    assert embedded.ask(valkey.socket, b"ACL DELUSER gateway\r\n") == b":1\r\n"


async def test_demoted_server_is_left(valkey: Valkey, redis: StoreClient) -> None:
    """A server that answers READONLY is connected to anew: behind its name there may be another by then."""
    client = connect(valkey.url, connections=1)
    before = await client.client_id()
    assert await client.client_id() == before
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable):
        await client.set("a", "1")
    await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert await client.client_id() != before
    await client.aclose()


async def test_pipeline_outlives_demotion(valkey: Valkey, redis: StoreClient) -> None:
    """One READONLY among a pipeline's replies takes none of the others along."""
    client = connect(valkey.url, connections=1)
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    async with client.pipeline(transaction=False) as pipe:
        pipe.set("a", "1")
        pipe.execute_command("ECHO", "x")
        refused, echoed = await pipe.execute(raise_on_error=False)
    await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert "READONLY" in str(refused) or "read only" in str(refused)
    assert echoed == "x"
    await client.aclose()


async def test_pipeline_of_many_runs_at_once(valkey: Valkey) -> None:
    """Commands through a door with TLS run side by side over as many connections as there are."""
    async with tls_door(valkey.socket, PEM) as port:
        client = connect(f"rediss://localhost:{port}?ssl_ca_certs={PEM}", connections=4)
        await asyncio.gather(*(client.incr("n") for _ in range(50)))
        assert await client.get("n") == "50"
        await client.aclose()
