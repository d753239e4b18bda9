"""Who operates the gateway: turns a bearer token into an Operator, and holds every route to the role it needs.

`AdminDep` or `ViewerDep` in an endpoint's signature says who may call it; `guarded` refuses a route that has neither.
Never tells which part of a token was wrong, and never takes a caller's key.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from pydantic import SecretStr

from gateway import errors
from gateway.callers.auth import count_wrong, read_bearer
from gateway.callers.operator_store import PREFIX, Role
from gateway.history.changes import ADMIN_TOKEN
from gateway.process.addresses import Address, read_address
from gateway.services import Services


@dataclass(frozen=True, slots=True)
class Operator:
    """Who asks, with what rights; `actor` and `address` are how the log of changes names them."""

    actor: str
    role: Role
    address: str | None

    def may(self, wanted: Role) -> bool:
        return self.role is Role.ADMIN or wanted is Role.VIEWER


def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


def known_admin(request: Request) -> Operator:
    """The operator, who may change things: the route was opened by `guarded` for that role."""
    return cast(Operator, request.state.operator)


def known_viewer(request: Request) -> Operator:
    """The operator, who may at least look."""
    return cast(Operator, request.state.operator)


ServicesDep = Annotated[Services, Depends(get_services)]
AdminDep = Annotated[Operator, Depends(known_admin)]
ViewerDep = Annotated[Operator, Depends(known_viewer)]


async def authorize(request: Request, wanted: Role) -> Operator:
    """Who sent this request, of which nothing but the head is read.

    Raises InvalidApiKey, RateLimited after too many wrong tokens, RoleNotAllowed, StoreUnavailable.
    """
    services = get_services(request)
    token = read_bearer(request.headers.get("authorization"))
    if not token:
        raise errors.InvalidApiKey(
            "You didn't provide an admin token. Send it in an Authorization header using Bearer auth "
            "(Authorization: Bearer YOUR_TOKEN)."
        )
    address = read_address(request.client.host if request.client else None)
    operator = await _identify(services, token, address)
    if operator is None:
        wrong = errors.InvalidApiKey(
            "Incorrect admin token provided. It is the one in GATEWAY_ADMIN_TOKEN, or an operator's, which begins with "
            f"{PREFIX}; a caller's API key opens nothing here."
        )
        raise await count_wrong(services.wrong_keys, address, wrong)
    if not operator.may(wanted):
        raise errors.RoleNotAllowed(
            f"The role {operator.role} may look at everything and change nothing; this needs the role {wanted}."
        )
    return operator


async def _identify(services: Services, token: str, address: Address | None) -> Operator | None:
    shown = None if address is None else str(address)
    if _is_same(token, services.settings.admin_token):
        return Operator(ADMIN_TOKEN, Role.ADMIN, shown)
    record = await services.operators.lookup(token)
    return None if record is None else Operator(f"operator:{record.name}", record.role, shown)


def _is_same(token: str, secret: SecretStr | None) -> bool:
    # Digests, because a comparison of texts of different lengths tells the length by its time.
    if secret is None:
        return False
    given, right = (hashlib.sha256(text.encode()).digest() for text in (token, secret.get_secret_value()))
    return hmac.compare_digest(given, right)
