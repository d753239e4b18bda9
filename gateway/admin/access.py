"""Access to the admin API: the operator of a bearer token, and the check of the role that a route needs.

`AdminDep` or `ViewerDep` in an endpoint's signature names that role. No answer tells the wrong part of a token, and a
caller's key opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, cast

import structlog
from fastapi import Depends, Request

from gateway import errors
from gateway.api.request import address_of, get_services
from gateway.callers.auth import count_wrong, explain_missing, read_bearer
from gateway.callers.operator_store import PREFIX, Role, is_admin_token
from gateway.history.changes import ADMIN_TOKEN
from gateway.operations.changes import Actor
from gateway.process.addresses import Address
from gateway.services import Services
from gateway.store.client import StoreUnavailable

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator of a request: the author of its changes, and the role."""

    actor: Actor
    role: Role

    def may(self, wanted: Role) -> bool:
        return self.role is Role.ADMIN or wanted is Role.VIEWER


def known_admin(request: Request) -> Operator:
    """The operator of a request. `guarded` has checked that the role is `admin`: the operator may change things."""
    return cast(Operator, request.state.operator)


def known_viewer(request: Request) -> Operator:
    """The operator of a request, with any role. `guarded` has checked the token: the operator may read."""
    return cast(Operator, request.state.operator)


AdminDep = Annotated[Operator, Depends(known_admin)]
ViewerDep = Annotated[Operator, Depends(known_viewer)]


async def authorize(request: Request, wanted: Role) -> Operator:
    """Find the operator of this request's token, and check that the role allows what `wanted` needs. Reads no body.

    A wrong token counts against its address. The operator's name goes into `request.state` for the log, also if the
    role is refused. Raises InvalidApiKey, RateLimited after too many wrong tokens, RoleNotAllowed, StoreUnavailable.
    """
    services = get_services(request)
    token = read_bearer(request.headers.get("authorization"))
    if not token:
        raise errors.InvalidApiKey(explain_missing(request.headers.get("authorization"), "admin token"))
    address = address_of(request)
    operator = await _identify(services, token, address)
    if operator is None:
        wrong = errors.InvalidApiKey(
            "Incorrect admin token provided. Send the token in GATEWAY_ADMIN_TOKEN, or an operator's, which begins "
            f"with {PREFIX}; a caller's API key does not work here."
        )
        raise await count_wrong(services.wrong_keys, address, wrong)
    # For the request's log line, which names a refused operator too.
    request.state.actor = operator.actor.name
    if not operator.may(wanted):
        raise errors.RoleNotAllowed(
            f"The role {operator.role} may read everything and change nothing; this needs the role {wanted}."
        )
    return operator


async def _identify(services: Services, token: str, address: Address | None) -> Operator | None:
    shown = None if address is None else str(address)
    if is_admin_token(token, services.settings.admin_token):
        return Operator(Actor(ADMIN_TOKEN, _log_change, shown), Role.ADMIN)
    record = await services.operators.lookup(token)
    return None if record is None else Operator(Actor(f"operator:{record.name}", _log_change, shown), record.role)


def _log_change(facts: Mapping[str, str | None], error: StoreUnavailable | None) -> None:
    if error is None:
        _log.info("changed", **facts)
    else:
        _log.error("a change is missing from the log of changes", **facts, exc_info=error)
