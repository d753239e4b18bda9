"""`/healthz` (the process answers) and `/readyz` (it takes work). Both are public.

`/readyz` names problems with codes alone. The details and the pauses are for operators: the log has the details, and so
has the answer to an operator's token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from gateway.api.request import ServicesDep, address_of
from gateway.callers.auth import read_bearer
from gateway.callers.key_store import PREFIX as KEY_PREFIX
from gateway.callers.operator_store import is_admin_token
from gateway.money.ledger_results import LedgerLost
from gateway.process.addresses import name_source
from gateway.services import Services
from gateway.store.client import StoreUnavailable

router = APIRouter(tags=["health"])

_log = structlog.get_logger(__name__)

Part = Literal["redis", "ledger", "storage", "process"]


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why a part of the gateway takes no work: a public code, and a detail for operators."""

    code: Literal["unavailable", "lost", "full", "shutting_down"]
    detail: str


class ReadinessLog:
    """The log of a process's readiness: one line for each change of the codes of its problems."""

    def __init__(self) -> None:
        self._logged: dict[Part, str] = {}

    def note(self, problems: Mapping[Part, Problem]) -> None:
        """Log the problems, or that there are none, if their codes differ from those of the last call.

        A shutdown of the process does not count as a problem here.
        """
        # An end that was asked for is no problem to an operator.
        codes: dict[Part, str] = {part: one.code for part, one in problems.items() if part != "process"}
        if codes == self._logged:
            return
        self._logged = codes
        if codes:
            details = {part: problem.detail for part, problem in problems.items() if part in codes}
            _log.error("not ready: new work is refused", **details)
        else:
            _log.info("ready again")


@router.get("/healthz", summary="The process answers")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="The process takes new work")
async def readyz(request: Request, services: ServicesDep) -> JSONResponse:
    """Answer 200. Answer 503 if Redis or the storage takes no writes, the ledger is lost, or the process stops.

    An operator's token adds the details and the pauses. A wrong token changes nothing, but counts against its address.
    """
    problems = await _find_problems(services)
    log: ReadinessLog = request.app.state.readiness
    log.note(problems)
    answer: dict[str, Any] = {"status": "unavailable" if problems else "ok"}
    if problems:
        answer["problems"] = {part: problem.code for part, problem in problems.items()}
    if await _is_operator(request, services):
        await services.health.look()
        answer["details"] = {part: problem.detail for part, problem in problems.items()}
        answer["pauses"] = [
            {"scope": scope, "seconds": math.ceil(left) or None}
            for scope, left in sorted(services.health.pauses.items())
        ]
    return JSONResponse(answer, 503 if problems else 200)


async def _is_operator(request: Request, services: Services) -> bool:
    """True when the request has an operator's token. While Redis is unavailable, only the token in the settings is."""
    token = read_bearer(request.headers.get("authorization"))
    # A caller's key is often sent along.
    if services.settings.admin_token is None or not token or token.startswith(KEY_PREFIX):
        return False
    if is_admin_token(token, services.settings.admin_token):
        return True
    with suppress(StoreUnavailable):
        if await services.operators.lookup(token) is not None:
            return True
        await services.wrong_keys.count(name_source(address_of(request)))
    return False


async def _find_problems(services: Services) -> dict[Part, Problem]:
    problems: dict[Part, Problem] = {}
    try:
        await services.ledger.check_store()
    except LedgerLost as error:
        problems["ledger"] = Problem("lost", f"{error}; `imagegate audit --accept` accepts the store as it is")
    except StoreUnavailable as error:
        problems["redis"] = Problem("unavailable", str(error))
    storage = await services.artifacts.check()
    if not storage.is_writable:
        problems["storage"] = Problem("unavailable", services.mask.clean(storage.reason, 200))
    elif (shortage := await services.disk_space.find_shortage()) is not None:
        problems["storage"] = Problem("full", shortage)
    if services.shutdown.is_begun:
        problems["process"] = Problem("shutting_down", "the process shuts down")
    return problems
