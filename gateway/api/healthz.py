"""`/healthz` (the process answers) and `/readyz` (it takes work). Both are public.

`/readyz` names problems with codes alone. The details are for operators: they are in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from gateway.api.request import ServicesDep
from gateway.money.ledger_results import LedgerLost
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
    """Answer 200. Answer 503 if Redis or the storage takes no writes, the ledger is lost, or the process stops."""
    problems = await _find_problems(services)
    log: ReadinessLog = request.app.state.readiness
    log.note(problems)
    if not problems:
        return JSONResponse({"status": "ok"})
    codes = {part: problem.code for part, problem in problems.items()}
    return JSONResponse({"status": "unavailable", "problems": codes}, 503)


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
