"""openai-python's two clients behind one face, so that every test drives both."""

from __future__ import annotations

import asyncio
import operator
from typing import Any

import openai

from tests.support.sdk_views import Gateway


class SyncDriver:
    """Calls a method of `openai.OpenAI` by its dotted name; a stream is read to its end."""

    def __init__(self, gateway: Gateway) -> None:
        self._sdk = openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0)

    def call(self, method: str, *, key: str | None = None, **arguments: Any) -> Any:
        sdk = self._sdk if key is None else self._sdk.with_options(api_key=key)
        answer = operator.attrgetter(method)(sdk)(**arguments)
        return list(answer) if isinstance(answer, openai.Stream) else answer

    def close(self) -> None:
        self._sdk.close()


class AsyncDriver:
    """The same with `openai.AsyncOpenAI`, on one event loop for all calls."""

    def __init__(self, gateway: Gateway) -> None:
        self._runner = asyncio.Runner()
        self._sdk = openai.AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0)

    def call(self, method: str, *, key: str | None = None, **arguments: Any) -> Any:
        return self._runner.run(self._call(method, key, arguments))

    async def _call(self, method: str, key: str | None, arguments: dict[str, Any]) -> Any:
        sdk = self._sdk if key is None else self._sdk.with_options(api_key=key)
        answer = await operator.attrgetter(method)(sdk)(**arguments)
        return [event async for event in answer] if isinstance(answer, openai.AsyncStream) else answer

    def close(self) -> None:
        self._runner.run(self._sdk.close())
        self._runner.close()
