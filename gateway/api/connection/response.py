"""An answer whose body is made while it is sent, by one task: it ends early when its caller has left.

Made by the image routes. Never looks at what it sends.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, cast

from fastapi import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from gateway.tasks.answer import Shaped
from gateway.tasks.wait import CallerConnection, CallerDisconnected


class TaskResponse(Response):
    """`presence` tells whether its caller has hung up.

    The framework's own streaming answer reads the connection in a second task, of its own.
    """

    def __init__(self, shaped: Shaped, presence: CallerConnection) -> None:
        self.status_code = shaped.status
        self.media_type = shaped.media_type
        self.background = None
        self._shaped = shaped
        self._presence = presence
        headers = {**shaped.headers, "content-type": _describe(shaped.media_type)}
        if shaped.length is not None:
            headers["content-length"] = str(shaped.length)
        # Not the base class's, which would add the length of a body that it was given.
        self.raw_headers = [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # Its pictures are closed at once, and not when somebody next looks for what nobody needs.
            async with aclosing(cast(Any, self._shaped.body)):
                await self._send(send)
        except CallerDisconnected:
            return

    async def _send(self, send: Send) -> None:
        left = self._shaped.length
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._shaped.body:
            if self._presence.gone.done():
                return
            left = None if left is None else left - len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left != 0})
        if left != 0:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _describe(media_type: str) -> str:
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
