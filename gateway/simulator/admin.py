"""The paths for tests: rules, book, log, reset. They need no key, and are for loopback only."""

from dataclasses import asdict

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.simulator.rules import Rule
from gateway.simulator.state import SimulatorState


def routes(state: SimulatorState) -> list[Route]:
    """Every path that begins with an underscore."""
    desk = _Desk(state)
    return [
        Route("/_faults", desk.add_rule, methods=["POST"]),
        Route("/_faults", desk.list_rules, methods=["GET"]),
        Route("/_faults", desk.clear_rules, methods=["DELETE"]),
        Route("/_faults/{rule_id}", desk.remove_rule, methods=["DELETE"]),
        Route("/_book", desk.list_book, methods=["GET"]),
        Route("/_log", desk.list_log, methods=["GET"]),
        Route("/_callbacks", desk.list_callbacks, methods=["GET"]),
        Route("/_reset", desk.reset, methods=["POST"]),
        Route("/_health", desk.tell_health, methods=["GET"]),
    ]


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


class _Desk:
    def __init__(self, state: SimulatorState) -> None:
        self._state = state

    async def add_rule(self, request: Request) -> Response:
        try:
            rule = Rule.model_validate_json(await request.body())
        except ValidationError as error:
            return _json({"error": error.errors(include_url=False, include_context=False)}, 400)
        return _json(self._state.faults.add(rule), 201)

    async def list_rules(self, request: Request) -> Response:
        return _json(self._state.faults.show())

    async def clear_rules(self, request: Request) -> Response:
        self._state.faults.clear()
        return Response(status_code=204)

    async def remove_rule(self, request: Request) -> Response:
        is_known = self._state.faults.remove(request.path_params["rule_id"])
        return Response(status_code=204 if is_known else 404)

    async def list_book(self, request: Request) -> Response:
        self._state.refund_ended_tasks()
        return _json([purchase.show() for purchase in self._state.book.purchases()])

    async def list_callbacks(self, request: Request) -> Response:
        return _json([asdict(told) for told in self._state.told])

    async def list_log(self, request: Request) -> Response:
        return _json([seen.show() for seen in self._state.log.entries()])

    async def reset(self, request: Request) -> Response:
        self._state.reset()
        return Response(status_code=204)

    async def tell_health(self, request: Request) -> Response:
        return _json({"status": "ok"})
