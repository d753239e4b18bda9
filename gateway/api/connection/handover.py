"""The handover of an answer to its client: it is complete, was cut off, or was refused after its last byte.

One for each request. Knows neither tasks nor money.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from uvicorn.protocols.http.flow_control import FlowControl

REFUSED_WITHIN_S = 5.0
"""Seconds after the last byte in which a reset means that the answer was not read. Later ones come from proxies, which
end idle connections with a reset."""


@dataclass(slots=True, eq=False)
class Handover:
    """The handover of one answer.

    `on_refusal` is called when the client resets the connection and has sent no other request. The client's kernel
    resets a connection that is closed with unread bytes. It closes one without a reset if the client's event loop had
    read the bytes when the caller gave up, which can happen from `patient_until` (the loop's time) on.
    `is_written`: the transport has the whole answer. `is_disconnected`: the client closed before it could have it.
    """

    transport: asyncio.Transport
    flow: FlowControl
    on_refusal: Callable[[], None] | None = None
    ended: float | None = None
    patient_until: float = math.inf
    is_written: bool = False
    is_disconnected: bool = False
    _lost: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_late(self) -> bool:
        """True when the client may be giving up about now."""
        return asyncio.get_running_loop().time() > self.patient_until

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` if the connection ends before the answer is written. Call this once the body is read."""
        # Reading stays paused after a large body, and asyncio sees no end of a connection that it does not read.
        self.flow.resume_reading()
        self._lost.add_done_callback(lambda _: None if self.is_written else callback())

    def end_input(self) -> None:
        """Note that the client sends no more: it has disconnected, unless the kernel has the whole answer."""
        self.is_disconnected = self.is_disconnected or not self.is_written or self.transport.get_write_buffer_size() > 0

    async def arrive(self) -> bool:
        """Wait until the kernel has the last byte; False when the connection broke or the client closed before."""
        self.is_written = True
        if not self.transport.is_closing():
            # With a limit of 0 `drain` waits for every byte.
            self.transport.set_write_buffer_limits(0)
            await self.flow.drain()
            self.ended = asyncio.get_running_loop().time()
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits()
            return not self.is_disconnected
        # A closing connection ends once all bytes are sent, or when it breaks.
        return await asyncio.shield(self._lost) and not self.is_disconnected

    def lose(self, exc: Exception | None) -> None:
        """Note the end of the connection; without `exc` it was closed in order."""
        if not self._lost.done():
            self._lost.set_result(exc is None)
        is_fresh = self.ended is not None and asyncio.get_running_loop().time() - self.ended < REFUSED_WITHIN_S
        is_refusal = isinstance(exc, ConnectionError) or (exc is None and self.is_late)
        if is_fresh and self.on_refusal is not None and is_refusal:
            self.on_refusal()
