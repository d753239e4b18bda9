"""How an answer goes over to its client: whether all of it left, and whether the client then refused to read it.

Made by `protocol` for each request, asked by `middleware`. Knows neither tasks nor money.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from uvicorn.protocols.http.flow_control import FlowControl

REFUSED_WITHIN_S = 5.0
"""Seconds after the last byte in which a reset says that the answer was not read. Later ones come from proxies that end
idle connections so."""


@dataclass(slots=True, eq=False)
class Handover:
    """One answer's. `on_refusal` is called when its client resets the connection without having asked anything more.

    A kernel resets a connection that is closed with bytes in it which nobody read; what was read is closed in peace. So
    is what an event loop had taken in when the caller gave up, as it may from `patient_until` on, in the loop's time.
    `is_written`: the transport was given all of it. `has_left`: its client had closed before it could have it.
    """

    transport: asyncio.Transport
    flow: FlowControl
    on_refusal: Callable[[], None] | None = None
    ended: float | None = None
    patient_until: float = math.inf
    is_written: bool = False
    has_left: bool = False
    _lost: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_late(self) -> bool:
        """Whether its client may be giving up about now."""
        return asyncio.get_running_loop().time() > self.patient_until

    def tell_of_hang_up(self, leave: Callable[[], None]) -> None:
        """Call `leave` when the connection ends before the answer is written; for when the whole body was read."""
        # Reading stays paused after a large body, and a connection that is not read is not seen to end.
        self.flow.resume_reading()
        self._lost.add_done_callback(lambda _: None if self.is_written else leave())

    def hear_end(self) -> None:
        """The client sends no more: it has left, unless the whole answer is with the kernel and may have reached it."""
        self.has_left = self.has_left or not self.is_written or self.transport.get_write_buffer_size() > 0

    async def arrive(self) -> bool:
        """Wait until the last byte is with the kernel; False when the connection broke, or the client left, before."""
        self.is_written = True
        if not self.transport.is_closing():
            # Paused as long as a single byte waits.
            self.transport.set_write_buffer_limits(0)
            await self.flow.drain()
            self.ended = asyncio.get_running_loop().time()
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits()
            return not self.has_left
        # One that is closing ends once all was sent, or as it breaks.
        return await asyncio.shield(self._lost) and not self.has_left

    def lose(self, exc: Exception | None) -> None:
        """The connection has ended, in peace if there is no `exc`."""
        if not self._lost.done():
            self._lost.set_result(exc is None)
        is_fresh = self.ended is not None and asyncio.get_running_loop().time() - self.ended < REFUSED_WITHIN_S
        is_refusal = isinstance(exc, ConnectionError) or (exc is None and self.is_late)
        if is_fresh and self.on_refusal is not None and is_refusal:
            self.on_refusal()
