"""Downloads of an address someone else chose: what is refused, what is connected to, what is left behind."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from gateway.net.fetcher import Fetcher, FetchFailed, FetchPolicy, FetchRefused, Posted, is_public
from gateway.net.transport import HttpTransport, Request
from gateway.pictures.spool import MemoryBudget, Spool
from tests.support.fault_server import Connection, FaultServer, listen_twice
from tests.support.ssrf_addresses import NOT_PUBLIC, PUBLIC, forms

PEM = Path(__file__).with_name("pictures.test.pem")


class Answer:
    """A whole answer, as a transport returns it."""

    def __init__(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self._data = data

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        yield self._data

    async def aclose(self) -> None:
        self._data = b""


class Recorder:
    """Stands where the network would be: notes each request that got through and answers from a table."""

    def __init__(self, answers: dict[str, Answer] | None = None) -> None:
        self.requests: list[Request] = []
        self._answers = answers or {}

    async def send(self, request: Request) -> Answer:
        self.requests.append(request)
        return self._answers.get(str(request.url)) or Answer(200, b"ok")

    async def aclose(self) -> None:
        self.requests.clear()


def redirect(location: str) -> Answer:
    return Answer(302, headers={"location": location})


def answering(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


def policy(*origins: str, max_bytes: int = 1_000_000, timeout_s: float = 2, idle_s: float = 1) -> FetchPolicy:
    return FetchPolicy(max_bytes, timeout_s, idle_s, frozenset(origins))


@pytest.fixture
async def spool(tmp_path: Path):
    spool = Spool(tmp_path, MemoryBudget(0))
    yield spool
    await spool.close()


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_no_private_address_is_opened(spool: Spool) -> None:
    """Whatever form an address takes in a URL or a name's answers, nothing outside the public internet is opened."""
    tried = 0
    for address in NOT_PUBLIC:
        recorder = Recorder()
        fetcher = Fetcher(policy(), transport=recorder, resolve=answering(address))
        for url in forms(address):
            with pytest.raises(FetchRefused):
                await fetcher.fetch(url, spool)
            tried += 1
        assert recorder.requests == [], address
    assert len(NOT_PUBLIC) >= 60
    assert tried >= 60 * 30


async def test_no_private_address_is_told() -> None:
    """A webhook meets the same judgement when it is accepted and when it is sent, whatever form its address takes."""
    for address in NOT_PUBLIC:
        recorder = Recorder()
        fetcher = Fetcher(policy(), transport=recorder, resolve=answering(address))
        for url in forms(address):
            with pytest.raises(FetchRefused):
                await fetcher.check(url)
            with pytest.raises(FetchRefused):
                await fetcher.post(url, b"{}", {})
        assert recorder.requests == [], address


async def test_accepted_address_is_judged_anew() -> None:
    """A name that was public when it was accepted and is private when it is told is not opened."""
    answers = iter([["8.8.8.8"], ["10.0.0.1"], ["8.8.8.8"]])

    async def rebind(host: str, port: int) -> Sequence[str]:
        return next(answers)

    recorder = Recorder()
    fetcher = Fetcher(policy(), transport=recorder, resolve=rebind)
    await fetcher.check("https://a.test/hook")
    with pytest.raises(FetchRefused):
        await fetcher.post("https://a.test/hook", b"{}", {})
    assert recorder.requests == []
    assert (await fetcher.post("https://a.test/hook", b"{}", {})).status == 200
    assert [request.addresses for request in recorder.requests] == [("8.8.8.8",)]


async def test_check_is_no_request() -> None:
    """An address is accepted without being opened; a host that is not found, or not in time, is told apart."""

    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise OSError

    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    recorder = Recorder()
    await Fetcher(policy(), transport=recorder, resolve=answering("8.8.8.8")).check("https://a.test/")
    for resolve, kind in ((nowhere, "network"), (never, "timeout")):
        with pytest.raises(FetchFailed) as caught:
            await Fetcher(policy(idle_s=0.05), transport=recorder, resolve=resolve).check("https://a.test/")
        assert caught.value.kind == kind
    assert recorder.requests == []


async def test_one_bad_answer_refuses_all(spool: Spool) -> None:
    """A name with a public and a private address is refused, in either order."""
    for address in NOT_PUBLIC:
        for answers in [("8.8.8.8", address), (address, "8.8.8.8")]:
            recorder = Recorder()
            with pytest.raises(FetchRefused):
                await Fetcher(policy(), transport=recorder, resolve=answering(*answers)).fetch("https://a.test/", spool)
            assert recorder.requests == []


async def test_public_addresses_are_opened(spool: Spool) -> None:
    """A public address is opened by name and as a literal, and is the only one handed to the connection."""
    for address in PUBLIC:
        assert is_public(address)
        recorder = Recorder()
        fetcher = Fetcher(policy(), transport=recorder, resolve=answering(address))
        literal = f"[{address}]" if ":" in address else address
        for url in ["https://a.test/p.png", "https://a.test:443/p.png", f"https://{literal}/p.png"]:
            assert await (await fetcher.fetch(url, spool)).read() == b"ok"
        assert [request.addresses for request in recorder.requests] == [(address,)] * 3


async def test_rebinding_changes_nothing(spool: Spool) -> None:
    """A name is looked up once, its checked address is connected to, and SNI, certificate and Host keep the name."""
    names: list[str | None] = []
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(PEM)
    served.sni_callback = lambda _socket, name, _context: names.append(name)
    trusted = ssl.create_default_context(cafile=PEM)
    heads: list[bytes] = []
    trapped: list[bytes] = []

    def answer_to(book: list[bytes]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            book.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nreal")
            writer.close()

        return answer

    answers = iter([["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1"]])

    async def rebind(host: str, port: int) -> Sequence[str]:
        assert host == "pictures.test"
        return next(answers)

    one, other = listen_twice("127.0.0.2", "127.0.0.1")
    port = one.getsockname()[1]
    checked = await asyncio.start_server(answer_to(heads), sock=one, ssl=served)
    trap = await asyncio.start_server(answer_to(trapped), sock=other, ssl=served)
    fetcher = Fetcher(
        FetchPolicy(1000, 2, 1, https_port=port),
        transport=HttpTransport(fresh=True, ssl_context=trusted),
        resolve=rebind,
        is_allowed=lambda address: address == "127.0.0.2",
    )
    async with checked, trap:
        blob = await fetcher.fetch(f"https://pictures.test:{port}/a.png", spool)
        assert await blob.read() == b"real"
        assert names == ["pictures.test"]
        assert f"Host: pictures.test:{port}".encode() in heads[0]
        with pytest.raises(FetchRefused):
            await fetcher.fetch(f"https://pictures.test:{port}/a.png", spool)
        assert (len(heads), trapped) == (1, [])
        await fetcher.aclose()
    assert next(answers) == ["127.0.0.1"]


async def test_redirect_is_judged_anew(spool: Spool) -> None:
    """A redirect to a private address, to http, to another port, or from a stranger to our own origin is refused."""
    for location in [
        *("https://10.0.0.1/", "https://[::1]/", "http://a.test/", "https://a.test:8443/", "//127.0.0.1/"),
        *("http://10.1.2.3:8000/x", "https://u:p@b.test/", "file:///etc/passwd"),
    ]:
        recorder = Recorder({"https://a.test/": redirect(location)})
        fetcher = Fetcher(policy("http://10.1.2.3:8000"), transport=recorder, resolve=answering("8.8.8.8"))
        with pytest.raises(FetchRefused):
            await fetcher.fetch("https://a.test/", spool)
        assert len(recorder.requests) == 1, location


async def test_three_redirects_and_no_more(spool: Spool) -> None:
    """Three redirects are followed, relative ones too; a fourth is refused, and one without a target fails."""
    chain = {
        "https://a.test/0": redirect("/1"),
        "https://a.test/1": redirect("https://b.test/2"),
        "https://b.test/2": redirect("3"),
        "https://b.test/3": redirect("https://a.test/1"),
        "https://a.test/4": Answer(302),
    }
    recorder = Recorder(chain)
    fetcher = Fetcher(policy(), transport=recorder, resolve=answering("8.8.8.8"))
    del chain["https://b.test/3"]
    assert await (await fetcher.fetch("https://a.test/0", spool)).read() == b"ok"
    chain["https://b.test/3"] = redirect("https://a.test/1")
    with pytest.raises(FetchRefused, match="more than 3 redirects"):
        await fetcher.fetch("https://a.test/0", spool)
    with pytest.raises(FetchFailed) as caught:
        await fetcher.fetch("https://a.test/4", spool)
    assert (caught.value.kind, caught.value.status) == ("status", 302)


async def test_no_credential_travels(spool: Spool) -> None:
    """A download carries a name for itself and nothing else, before and after a redirect."""
    recorder = Recorder({"https://a.test/": redirect("https://b.test/")})
    await Fetcher(policy(), transport=recorder, resolve=answering("8.8.8.8")).fetch("https://a.test/", spool)
    for request in recorder.requests:
        assert set(request.headers) == {"accept", "user-agent"}
    for url in ["https://user@a.test/", "https://user:secret@a.test/", "https://:secret@a.test/"]:
        with pytest.raises(FetchRefused, match="user name"):
            await Fetcher(policy(), transport=recorder).fetch(url, spool)


async def test_only_exact_origin_is_configured(spool: Spool) -> None:
    """A configured origin may be http and private; its neighbours by scheme, port or spelling may not."""
    recorder = Recorder()
    fetcher = Fetcher(policy("http://Vendor.test:8000"), transport=recorder, resolve=answering("10.0.0.1"))
    await fetcher.fetch("http://vendor.test:8000/a.png", spool)
    for url in [
        *("http://vendor.test:8001/", "https://vendor.test:8000/", "http://vendor.test/", "https://vendor.test/"),
        *("http://vendor.test.:8000/", "http://10.0.0.1:8000/", "http://x.vendor.test:8000/", "ws://vendor.test:8000/"),
        *("http://vendor.test:8000@evil.test/", "http://u@vendor.test:8000/", "http://vendor.test:80000/"),
    ]:
        with pytest.raises(FetchRefused):
            await fetcher.fetch(url, spool)
    assert len(recorder.requests) == 1


async def test_large_body_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    """A body over the cap is cut, declared or not, and leaves no file behind."""
    cap = 1_000_000

    async def declare(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(b"x" * (cap + 1))

    async def pour(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    async def pour_uncounted(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await connection.send(b"x" * 0x10000)

    for script in (declare, pour, pour_uncounted):
        async with FaultServer(script) as server:
            fetcher = Fetcher(policy(server.url, max_bytes=cap))
            with pytest.raises(FetchFailed) as caught:
                await fetcher.fetch(server.url, spool)
            assert caught.value.kind == "too_large"
            await server.gone.acquire()
            await fetcher.aclose()
        assert left(tmp_path) == []


async def test_exact_cap_is_kept(spool: Spool) -> None:
    """A body of exactly the cap arrives whole, on disk; the cap of one call overrides the policy's."""

    async def answer(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(b"x" * 900_000)

    async with FaultServer(answer) as server:
        fetcher = Fetcher(policy(server.url, max_bytes=10))
        blob = await fetcher.fetch(server.url, spool, max_bytes=900_000)
        assert (blob.size, blob.path is not None) == (900_000, True)
        await fetcher.aclose()


async def test_slow_host_times_out(spool: Spool, tmp_path: Path) -> None:
    """A host that drips for ever meets the limit on the whole, one that stops meets the limit on silence."""

    async def drip(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await connection.send(b"x")
            await asyncio.sleep(0.02)

    async def stop(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await connection.stall()

    for script, timeout_s, idle_s in [(drip, 0.3, 0.2), (stop, 2, 0.2)]:
        async with FaultServer(script) as server:
            fetcher = Fetcher(policy(server.url, timeout_s=timeout_s, idle_s=idle_s))
            with pytest.raises(FetchFailed) as caught:
                await fetcher.fetch(server.url, spool)
            assert caught.value.kind == "timeout"
            await fetcher.aclose()
        assert left(tmp_path) == []


async def test_failures_have_their_kind(spool: Spool, tmp_path: Path) -> None:
    """A status, a cut body, a compressed one and an unknown host are told apart."""
    script: dict[bytes, bytes] = {
        b"/404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"/206": b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx",
        b"/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"/zstd": b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: 1\r\n\r\nx",
        b"/gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n\x1f\x8bdamaged",
        b"/none": b"",
    }

    async def play(connection: Connection) -> None:
        head = await connection.read_request()
        await connection.send(script[head.split(b" ")[1]])

    kinds = {"/404": "status", "/206": "status", "/cut": "network", "/none": "network"}
    kinds |= {"/zstd": "encoding", "/gzip": "encoding"}
    async with FaultServer(play) as server:
        fetcher = Fetcher(policy(server.url))
        for path, kind in kinds.items():
            with pytest.raises(FetchFailed) as caught:
                await fetcher.fetch(server.url + path, spool)
            assert caught.value.kind == kind
        await fetcher.aclose()
    with pytest.raises(FetchFailed) as caught:
        await Fetcher(policy(), resolve=answering()).fetch("https://a.test/", spool)
    assert caught.value.kind == "network"
    assert left(tmp_path) == []


async def test_webhook_is_sent_once() -> None:
    """A webhook goes out once, under the same rules, with its headers; no redirect is followed."""

    async def receive(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(b"", "307 Temporary Redirect", "Location: /other", "Retry-After: 7")

    async with FaultServer(receive) as server:
        fetcher = Fetcher(policy(server.url))
        assert await fetcher.post(server.url, b'{"a":1}', {"webhook-id": "m1"}) == Posted(307, "7")
        assert server.bodies == [b'{"a":1}']
        assert b"webhook-id: m1" in server.heads[0]
        with pytest.raises(FetchRefused):
            await Fetcher(policy(), resolve=answering("10.0.0.1")).post("https://a.test/", b"", {})
        await fetcher.aclose()


async def test_system_resolver_is_judged(spool: Spool) -> None:
    """The system's own answer for a loopback name is refused, also where it is the real resolver that gives it."""
    with pytest.raises(FetchRefused):
        await Fetcher(policy(), transport=Recorder()).fetch("https://localhost/", spool)
    assert not is_public("2606:4700::1%2")
    assert not is_public("not an address")
    assert is_public(str(ipaddress.ip_address("::ffff:8.8.8.8")))
