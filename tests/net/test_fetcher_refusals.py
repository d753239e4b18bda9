"""Each reason to refuse or to give up an address, and each kind of redirect, by itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import httpx
import pytest
from typing_extensions import override

from gateway.net.fetcher import Fetcher, FetchFailed, FetchRefused, Posted, is_public
from gateway.net.transport import Request, look_up
from gateway.pictures.spool import Spool
from tests.net.test_fetcher import Answer, Recorder, answering, policy, spool

__all__ = ["spool"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_each_redirect_is_followed(spool: Spool, status: int) -> None:
    """Every kind of redirect leads on; other answers below 400 are no file."""
    recorder = Recorder({"https://x.test/a": Answer(status, headers={"location": "/b"})})
    fetcher = Fetcher(policy(), transport=recorder, resolve=answering("1.1.1.1"))
    await fetcher.fetch("https://x.test/a", spool)
    assert [request.url.path for request in recorder.requests] == ["/a", "/b"]
    other = Recorder({"https://x.test/a": Answer(304, headers={"location": "/b"})})
    with pytest.raises(FetchFailed) as failed:
        await Fetcher(policy(), transport=other, resolve=answering("1.1.1.1")).fetch("https://x.test/a", spool)
    assert (failed.value.kind, failed.value.status) == ("status", 304)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https:///a.png", "not a web address"),
        ("a.png", "not a web address"),
        ("http://x.test/a.png", "only https"),
        ("ftp://x.test/a.png", "only https"),
        ("https://x.test:80/a.png", "only port 443"),
        ("https://u@x.test/a.png", "user name"),
        ("https://x..test/a.png", "neither a name nor an IP address"),
        ("https://0x7f.1/a.png", "neither a name nor an IP address"),
    ],
)
async def test_each_refusal_says_why(url: str, reason: str, spool: Spool) -> None:
    """What is wrong with an address is named, and nothing is looked up or opened."""
    recorder = Recorder()

    async def resolve(host: str, port: int) -> Sequence[str]:
        raise AssertionError

    with pytest.raises(FetchRefused, match=reason):
        await Fetcher(policy(), transport=recorder, resolve=resolve).fetch(url, spool)
    assert not recorder.requests


@pytest.mark.parametrize(
    ("origin", "url"), [("http://x.test", "http://x.test:80/a"), ("https://x.test:443", "https://x.test/a")]
)
async def test_usual_port_may_be_left_out(origin: str, url: str, spool: Spool) -> None:
    """A configured origin is the same with its usual port as without it, and is that of no other port."""
    asked: list[int] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(port)
        return ("10.0.0.1",)

    fetcher = Fetcher(policy(origin), transport=Recorder(), resolve=resolve)
    await fetcher.fetch(url, spool)
    assert asked == [80 if url.startswith("http:") else 443]
    with pytest.raises(FetchRefused):
        await fetcher.fetch("http://x.test:81/a", spool)


async def test_slow_receiver_is_left() -> None:
    """A receiver that does not answer in time is a failure of that kind."""

    class Silent(Recorder):
        @override
        async def send(self, request: Request) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

    fetcher = Fetcher(policy(timeout_s=0.05), transport=Silent(), resolve=answering("1.1.1.1"))
    with pytest.raises(FetchFailed) as failed:
        await fetcher.post("https://x.test/", b"", {})
    assert failed.value.kind == "timeout"


async def test_interface_of_an_address_is_seen() -> None:
    """The system's look-up names the interface of a link-local address, and that address is not public."""
    (found,) = await look_up("fe80::1%lo", 443)
    assert found == f"fe80::1%{socket.if_nametoindex('lo')}"
    assert not is_public(found)
    assert await look_up("2001:4860:4860::8888", 443) == ["2001:4860:4860::8888"]


class Failing(Recorder):
    """A network that fails each request in one way."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    @override
    async def send(self, request: Request) -> Answer:
        raise self._error


@pytest.mark.parametrize(
    ("error", "kind"), [(httpx.ConnectError("no route"), "network"), (httpx.ReadTimeout("slow"), "timeout")]
)
async def test_failed_connection_has_its_kind(error: Exception, kind: str, spool: Spool) -> None:
    """A download and a webhook that fail on the way are told apart from those that take too long."""
    fetcher = Fetcher(policy(), transport=Failing(error), resolve=answering("1.1.1.1"))
    for asked in (fetcher.fetch("https://x.test/a", spool), fetcher.post("https://x.test/", b"", {})):
        with pytest.raises(FetchFailed, match=r"failed|too long") as failed:
            await asked
        assert (failed.value.kind, failed.value.status) == (kind, None)


class Closing(Answer):
    """An answer that notes its end."""

    is_closed = False

    @override
    async def aclose(self) -> None:
        self.is_closed = True


async def test_answers_are_closed(spool: Spool) -> None:
    """Whatever comes of an answer, its connection is given back."""
    answers = {
        "https://x.test/a": Closing(302, headers={"location": "/b"}),
        "https://x.test/b": Closing(404, b"ok"),
        "https://x.test/hook": Closing(204),
    }
    recorder = Recorder({**answers})
    fetcher = Fetcher(policy(), transport=recorder, resolve=answering("1.1.1.1"))
    with pytest.raises(FetchFailed):
        await fetcher.fetch("https://x.test/a", spool)
    assert await fetcher.post("https://x.test/hook", b"", {}) == Posted(204, None)
    assert all(answer.is_closed for answer in answers.values())
    assert len(recorder.requests) == 3
    await fetcher.aclose()
    # The transport is closed with its fetcher.
    assert not recorder.requests


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("2a00:1450::5efe:0808:0808", True),
        ("2a00:1450::200:5efe:0808:0808", True),
        ("2a00:1450::5efe:0a00:0001", False),
        ("2a00:1450::200:5efe:0a00:0001", False),
        ("2a00:1450::5eff:0a00:0001", True),
    ],
)
def test_tunneled_address_is_its_inner_one(address: str, is_open: bool) -> None:
    """An ISATAP address is as public as the IPv4 address in it."""
    assert is_public(address) is is_open
