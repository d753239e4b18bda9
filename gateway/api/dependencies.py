"""Dependencies of endpoints: the services, and the caller, authenticated before the body is read."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request, Response

from gateway.callers.auth import Caller, authenticate
from gateway.money import reservation
from gateway.process.addresses import Address, read_address
from gateway.services import Services


def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


def address_of(request: Request) -> Address | None:
    """The client's address, or the one that a trusted proxy reports; None on a Unix socket."""
    return read_address(request.client.host if request.client else None)


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_caller(request: Request, services: ServicesDep) -> Caller:
    """The caller of a request. Raises InvalidApiKey, KeyDisabled, AddressNotAllowed, RateLimited."""
    authorization = request.headers.get("authorization")
    return await authenticate(services.key_cache, services.wrong_keys, authorization, address_of(request))


CallerDep = Annotated[Caller, Depends(get_caller)]


async def add_rate_headers(services: ServicesDep, caller: CallerDep, response: Response) -> None:
    """Add the `x-ratelimit-*` headers to an answer of a route that reserves nothing."""
    response.headers.update(await reservation.look_at_rates(services.books, caller.identity))
