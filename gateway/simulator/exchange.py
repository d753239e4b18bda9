"""One request in the simulator: its faults, its log entry and its answer.

`VendorEndpoint` is the ASGI application of every vendor path; the vendors' modules supply the handlers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from gateway.simulator import faults
from gateway.simulator.answers import Answer, AnswerNow, Refusal, Severed, answer_json, vendor_error
from gateway.simulator.connection import Connection
from gateway.simulator.journal import Purchase, Seen
from gateway.simulator.keys import Key, find_key, name_key
from gateway.simulator.rules import StruckFaults, Target
from gateway.simulator.state import SimulatorState

_PIECE = 256 * 1024
_HTML = b"<!DOCTYPE html><html><head><title>Error</title></head><body><h1>It did not work</h1></body></html>"
_HEADERS = (
    "host",
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "idempotency-key",
    "user-agent",
    "accept-encoding",
)


@dataclass
class Exchange:
    """A request, its log entry, and the faults that apply to it."""

    state: SimulatorState
    upstream: str
    endpoint: str
    request: Request
    connection: Connection
    seen: Seen
    key: Key | None = None
    purchase: Purchase | None = None
    on_delivered: list[Callable[[], None]] = field(default_factory=list)

    @property
    def known_key(self) -> Key:
        assert self.key is not None, "an endpoint that needs a key runs after it was checked"
        return self.key

    def set_model(self, model: str) -> None:
        self.seen.model = model

    def take(self, moment: faults.Moment) -> StruckFaults:
        """The faults that apply now; the log records them."""
        target = Target(
            upstream=self.upstream,
            endpoint=self.endpoint,
            model=self.seen.model,
            key=None if self.key is None else self.key.name,
        )
        struck = self.state.faults.take(target, moment)
        self.seen.faults += [fault.kind for fault in struck]
        return StruckFaults(list(struck))

    async def meet(self, moment: faults.Moment) -> None:
        """Apply the faults of a moment before or after acceptance, in the order of their rules."""
        for fault in self.take(moment).faults:
            match fault:
                case faults.Delay():
                    await asyncio.sleep(fault.seconds)
                case faults.Hang():
                    self.seen.ending = "hung"
                    await self.connection.wait_gone()
                    raise Severed
                case faults.Reset():
                    self.seen.ending = "reset"
                    await self.connection.reset()
                    raise Severed
                case faults.Status():
                    if self.purchase is not None and fault.refunded:
                        self.state.refund(self.purchase)
                    raise AnswerNow(_status_answer(self.upstream, fault))
                case faults.DeadLink():
                    raise Refusal(fault.status, "not_found", "This link is not valid any more.")
                case _:
                    raise AssertionError(f"{fault} has no moment of its own")

    def accept(self, purchase: Purchase) -> None:
        """Write a paid submission into the book; from here on it costs money."""
        self.purchase = purchase
        self.seen.purchase = purchase.id
        self.state.buy(purchase)

    def count_delivered(self, images: int) -> None:
        """Record the number of delivered pictures in the book after the answer is sent."""
        purchase = self.purchase
        if purchase is None:
            return

        def note() -> None:
            purchase.images_delivered = max(purchase.images_delivered, images)

        self.on_delivered.append(note)


def _status_answer(upstream: str, fault: faults.Status) -> Answer:
    if fault.html:
        answer = Answer(fault.status, [_HTML], media_type="text/html; charset=utf-8")
    elif fault.empty or fault.status in (204, 304):
        answer = Answer(fault.status, [b""])
    else:
        error = vendor_error(upstream, fault.message, fault.type, fault.code)
        answer = answer_json({"error": error}, status=fault.status)
    answer.headers |= fault.headers
    if fault.retry_after is not None:
        after = fault.retry_after
        answer.headers["retry-after"] = after if isinstance(after, str) else f"{after:g}"
    return answer


Handler: TypeAlias = Callable[[Exchange], Awaitable[Answer]]


class VendorEndpoint:
    """Runs a handler, with log, key check, faults, the vendor's error shape and the answer."""

    def __init__(self, state: SimulatorState, upstream: str, endpoint: str, handler: Handler) -> None:
        self._state = state
        self._upstream = upstream
        self._endpoint = endpoint
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        exchange = Exchange(
            state=self._state,
            upstream=self._upstream,
            endpoint=self._endpoint,
            request=request,
            connection=Connection(scope, receive),
            seen=self._state.log.open(lambda number: self._see(number, request)),
        )
        try:
            answer, struck = await self._answer(exchange)
            await _deliver(exchange, answer, struck, send)
        except (Severed, ClientDisconnect):
            if exchange.seen.ending == "open":
                exchange.seen.ending = "caller_left"
        finally:
            await request.close()

    def _see(self, number: int, request: Request) -> Seen:
        return Seen(
            id=number,
            method=request.method,
            path=request.url.path,
            query=request.url.query,
            upstream=self._upstream,
            endpoint=self._endpoint,
            headers=_show_headers(request.headers),
        )

    async def _answer(self, exchange: Exchange) -> tuple[Answer, StruckFaults]:
        try:
            await exchange.meet("headers")
            if self._endpoint != "files":
                exchange.key = _require_key(exchange)
            answer = await self._handler(exchange)
            return answer, exchange.take("answer")
        except Refusal as refusal:
            exchange.seen.refusal = refusal.message
            exchange.seen.undocumented += refusal.undocumented
            exchange.seen.refused += refusal.refused
            return refusal.answer(self._upstream), StruckFaults([])
        except AnswerNow as now:
            return now.answer, StruckFaults([])


def _require_key(exchange: Exchange) -> Key:
    key = find_key(exchange.upstream, exchange.request.headers.get("authorization"))
    if key is None:
        raise Refusal(401, "invalid_api_key", "Invalid token.", kind="authentication_error")
    return key


def _show_headers(headers: Headers) -> dict[str, object]:
    shown: dict[str, object] = {name: headers[name] for name in _HEADERS if name in headers}
    shown["authorization"] = "authorization" in headers
    shown["key"] = name_key(headers.get("authorization"))
    shown["names"] = sorted(set(headers.keys()))
    return shown


def _replaced(exchange: Exchange, answer: Answer, struck: StruckFaults) -> Answer:
    if garbage := struck.get(faults.Garbage):
        return Answer(200, [garbage.body.encode()])
    if struck.get(faults.Html):
        return Answer(200, [_HTML], media_type="text/html; charset=utf-8")
    if error := struck.get(faults.Error200):
        shown = vendor_error(exchange.upstream, error.message, error.type, error.code)
        return answer_json({"error": shown})
    return answer


async def _deliver(exchange: Exchange, answer: Answer, struck: StruckFaults, send: Send) -> None:
    replaced = _replaced(exchange, answer, struck)
    if replaced is not answer:
        exchange.on_delivered.clear()
    reset, truncate = struck.get(faults.Reset), struck.get(faults.Truncate)
    slow = struck.get(faults.SlowBody)
    if exchange.connection.is_gone:
        raise Severed
    exchange.seen.status = replaced.status
    await send(_start(exchange, replaced))
    if reset or truncate:
        share = truncate.share if truncate else 0.5
        await _send_part(replaced, int(replaced.length * share), slow, send)
        exchange.seen.ending = "reset" if reset else "truncated"
        if reset:
            await exchange.connection.flush()
            await exchange.connection.reset()
        else:
            await exchange.connection.close()
        raise Severed
    await _send_part(replaced, replaced.length, slow, send)
    if exchange.connection.is_gone:
        raise Severed
    # Before the last message, because a test may read the book as soon as it has the answer.
    exchange.seen.ending = "answered"
    for note in exchange.on_delivered:
        note()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _start(exchange: Exchange, answer: Answer) -> dict[str, object]:
    headers = {
        "content-type": answer.media_type,
        "content-length": str(answer.length),
        "x-simulator-request": str(exchange.seen.id),
        **answer.headers,
    }
    if exchange.upstream != "anyfast":
        headers["x-request-id"] = f"req_{exchange.seen.id:08d}"
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": answer.status, "headers": pairs}


def _slices(answer: Answer, length: int, chunk: int) -> Iterator[memoryview]:
    for piece in answer.pieces:
        view = memoryview(piece)[:length]
        length -= len(view)
        for start in range(0, len(view), chunk):
            yield view[start : start + chunk]


async def _send_part(answer: Answer, length: int, slow: faults.SlowBody | None, send: Send) -> None:
    """Send the first `length` bytes and leave the answer open."""
    for part in _slices(answer, length, slow.chunk if slow else _PIECE):
        await send({"type": "http.response.body", "body": part, "more_body": True})
        if slow:
            await asyncio.sleep(len(part) / slow.bytes_per_second)
