"""The routes of models: the list of the models and aliases that a key may use, and one of them, in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from gateway import errors
from gateway.api.request import CallerDep, ServicesDep, add_rate_headers
from gateway.callers.auth import Caller
from gateway.catalogue.catalogue import explain_unknown_model
from gateway.services import Services

router = APIRouter(tags=["models"], dependencies=[Depends(add_rate_headers)])

_CREATED = 1_776_729_600
"""2026-04-21 in unix seconds, the day on which gpt-image-2 was published; OpenAI's shape requires a time."""


@router.get("/models", summary="The models this key may use")
async def list_models(services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    return {"object": "list", "data": [_describe(name) for name in _names(services, caller)]}


@router.get("/models/{model:path}", summary="One model")
async def show_model(model: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    names = _names(services, caller)
    if model not in names:
        raise errors.ModelNotFound(explain_unknown_model(model, names), param="model")
    return _describe(model)


def _names(services: Services, caller: Caller) -> list[str]:
    return [name for name in services.catalogue.model_names() if _is_served(services, caller, name)]


def _is_served(services: Services, caller: Caller, name: str) -> bool:
    found = services.catalogue.find_model(name)
    if found is None or not caller.may_use(name, found[1]):
        return False
    return any(caller.may_reach(target.upstream) for target in services.catalogue.targets_of(found[0]))


def _describe(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "imagegate"}
