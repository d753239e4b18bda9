"""The facts in the head of a request: the caller, time-outs, retries, idempotency, the preferred answer, the webhook.

OpenAI's SDKs send the `x-stainless-*` headers by themselves.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, Literal, cast

from fastapi import Depends, Request, Response
from starlette.datastructures import Headers
from starlette.types import Scope
from typing_extensions import override

from gateway import errors
from gateway.callers.auth import Caller, authenticate
from gateway.callers.key_record import LONGEST_URL, KeyRecord
from gateway.callers.webhook_addresses import find_fault
from gateway.jobs.job import ImageJob, Repeat, digest_key, take_fingerprint
from gateway.money import reservation
from gateway.net.outside_text import read_count, read_number
from gateway.process.addresses import Address, read_address
from gateway.services import Services

LONGEST_KEY = 255
MOST_RETRIES = 1000

_FOREIGN_KEYS = {
    "api-key": "Azure (`AzureOpenAI`)",
    "x-api-key": "Anthropic's API",
    "x-goog-api-key": "Google's Gemini API",
}
"""Headers in which other vendors' clients send a key, and the names of those clients."""

_WAIT = re.compile(r"wait\s*=\s*\"?([0-9]{1,6})\"?")


class HeaderTable(Headers):
    """The headers of a request, decoded once. Of a header that was sent twice `get` returns the first, as usual."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        # The last of equal names stays in a dict.
        self._first = {name.decode("latin-1"): text.decode("latin-1") for name, text in reversed(self.raw)}

    @override
    def __getitem__(self, key: str) -> str:
        return self._first[key.lower()]

    @override
    def get(self, key: str, default: Any = None) -> Any:
        return self._first.get(key.lower(), default)

    @override
    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._first


class DirectRequest(Request):
    """A request whose headers are looked up in a table: the framework searches them all each time."""

    @property
    @override
    def headers(self) -> Headers:
        if not hasattr(self, "_headers"):
            self._headers = HeaderTable(self.scope)
        return self._headers


async def read_repeat(
    request: Request, job: ImageJob, model: str, form: Literal["answer", "task"], patience: float | None
) -> Repeat:
    """Return the facts by which the ledger recognises a request that repeats an earlier one.

    `patience` is the SDK's time-out in seconds, None if it announces none.
    Raises InvalidValue for an Idempotency-Key that is empty or too long. One that a different request has used is
    refused later, with 422, when the request opens its task.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= LONGEST_KEY:
        raise errors.InvalidValue(f"`Idempotency-Key` must have 1 to {LONGEST_KEY} characters.")
    asked = (job, model, request.headers.get("x-gateway-upstream"))
    has_files = any(one.blob.path for one in (*job.references, job.mask) if one is not None)
    return Repeat(
        fingerprint=await asyncio.to_thread(take_fingerprint, *asked) if has_files else take_fingerprint(*asked),
        idempotency=digest_key(job.operation, key) if key else "",
        retry=read_count(request.headers.get("x-stainless-retry-count"), MOST_RETRIES) or 0,
        patience=patience or 0.0,
        form=form,
    )


def read_preference(request: Request) -> tuple[Literal["answer", "task"], float | None]:
    """Return the form of answer that `Prefer` asks for, and the seconds of its `wait`, None without it.

    If the work takes longer than these seconds, the answer is a task. `wait` takes precedence over `respond-async`.
    """
    text = ",".join(request.headers.getlist("prefer")).lower()
    wishes = [wish.partition(";")[0].strip() for wish in text.split(",")]
    wait = next((found[1] for wish in wishes if (found := _WAIT.fullmatch(wish))), None)
    if wait is not None:
        return "answer", read_number(wait)
    return ("task", None) if "respond-async" in wishes else ("answer", None)


async def read_webhook(request: Request, services: Services) -> str | None:
    """Return the URL in `X-Gateway-Webhook`, after a look-up of its host; None without the header.

    Raises InvalidValue for two such headers, and for a URL that is too long or that the gateway would not open.
    """
    given = request.headers.getlist("X-Gateway-Webhook")
    if not given:
        return None
    if len(given) > 1:
        raise errors.InvalidValue("X-Gateway-Webhook was sent twice; send one URL.")
    if len(given[0]) > LONGEST_URL:
        raise errors.InvalidValue(f"X-Gateway-Webhook must have at most {LONGEST_URL} characters.")
    if fault := await find_fault(services.webhook_fetcher, given[0]):
        raise errors.InvalidValue(f"X-Gateway-Webhook: {fault}.")
    return given[0]


def answer_within(seconds: float | None, longest: float) -> float:
    """Seconds within which the gateway must answer: the SDK's time-out minus the smaller of 10 s and its quarter.

    `seconds` is that time-out. The result is at most `longest`, also for an SDK that announces none.
    """
    return longest if seconds is None else min(longest, seconds - min(10.0, seconds / 4))


def keep_alive(seconds: float | None, usual: float) -> float:
    """Seconds between the comments of a stream: a third of the SDK's time-out `seconds`, but no more than `usual`."""
    return usual if seconds is None else min(usual, seconds / 3)


def sdk_timeout(request: Request) -> float | None:
    """The time-out that an OpenAI SDK announces, in seconds; None if it announces no positive number.

    openai-python announces its default too, openai-node only a time-out that its user set.
    """
    text = request.headers.get("x-stainless-read-timeout") or request.headers.get("x-stainless-timeout")
    seconds = read_number(text)
    return seconds if seconds and seconds > 0 else None


def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


def address_of(request: Request) -> Address | None:
    """The client's IP address, or the one that a trusted proxy reports; None without one, as on a Unix socket."""
    return read_address(request.client.host if request.client else None)


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_caller(request: Request, services: ServicesDep) -> Caller:
    """Find the caller of a request from the key in its `Authorization` header.

    The record of a known key goes into `request.state` for the log, also if the key is refused. A wrong key counts
    against its address. Raises InvalidApiKey, KeyDisabled, AddressNotAllowed, RateLimited and QuotaStoreUnavailable.
    """

    def note_key(key: KeyRecord) -> None:
        # For the request's log line, which names a refused key too.
        request.state.key = key

    authorization = request.headers.get("authorization")
    if authorization is None:
        _refuse_foreign_key(request)
    return await authenticate(services.key_cache, services.wrong_keys, authorization, address_of(request), note_key)


def _refuse_foreign_key(request: Request) -> None:
    """Raise InvalidApiKey for a key in the header of another vendor's client."""
    for name, client in _FOREIGN_KEYS.items():
        if name in request.headers:
            raise errors.InvalidApiKey(
                f"The header `{name}` is for {client}. Use a client of OpenAI's API (in OpenAI's SDKs the class "
                "`OpenAI`), which sends the key as `Authorization: Bearer`, with this gateway's address and /v1 as its "
                "base URL."
            )


CallerDep = Annotated[Caller, Depends(get_caller)]


async def add_rate_headers(services: ServicesDep, caller: CallerDep, response: Response) -> None:
    """Add the `x-ratelimit-*` headers of the caller's limits to an answer; none while Redis is unavailable."""
    response.headers.update(await reservation.look_at_rates(services.books, caller.identity))
