"""The routes of the admin API's own users: their tokens and roles."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from gateway import errors
from gateway.admin.access import AdminDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.shapes import QueryModel, refusals
from gateway.api.request import ServicesDep
from gateway.callers.operator_store import OperatorName, OperatorRecord, Role
from gateway.operations import operators
from gateway.operations.answers import AnswerModel, Deleted, Listing
from gateway.operations.operators import CreatedOperator

router = APIRouter(route_class=GuardedRoute, tags=["operators"])


class NewOperator(QueryModel):
    """The body of a request that creates an operator."""

    name: OperatorName
    role: Role = Role.VIEWER


class Myself(AnswerModel):
    """The operator of the token that was sent."""

    actor: str = Field(description="`admin-token` or `operator:NAME`, as in the log of changes.")
    role: Role


@router.get("/me", summary="Who I am")
async def show_me(operator: ViewerDep) -> Myself:
    return Myself(actor=operator.actor.name, role=operator.role)


@router.get("/operators", summary="All operators, by name")
async def list_operators(services: ServicesDep, operator: ViewerDep) -> Listing[OperatorRecord]:
    return await operators.list_operators(services)


@router.post("/operators", summary="Give somebody a token", status_code=201)
async def create_operator(services: ServicesDep, operator: AdminDep, new: NewOperator) -> CreatedOperator:
    """Create an operator. The token is in this answer and nowhere else."""
    return await operators.create_operator(services, operator.actor, new.name, new.role)


@router.delete("/operators/{name}", summary="Delete an operator", responses=refusals(errors.OperatorNotFound))
async def delete_operator(
    services: ServicesDep, operator: AdminDep, name: Annotated[str, Path(max_length=64)]
) -> Deleted:
    """Delete an operator, whose token is refused from its next request on."""
    return await operators.delete_operator(services, operator.actor, name)
