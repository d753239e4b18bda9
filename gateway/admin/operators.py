"""The admin API's own users: who has a token, with which role."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from gateway import errors
from gateway.admin.access import AdminDep, ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.recording import record_change
from gateway.admin.shapes import AnswerModel, Gone, Listing, QueryModel, refusals
from gateway.callers.operator_store import OperatorName, OperatorRecord, Role

router = APIRouter(route_class=GuardedRoute, tags=["operators"])


class NewOperator(QueryModel):
    """An operator to be."""

    name: OperatorName
    role: Role = Role.VIEWER


class CreatedOperator(OperatorRecord):
    """An operator with the token, which nothing can show again."""

    token: str = Field(description="Shown this once.")


class Myself(AnswerModel):
    """Who asks."""

    actor: str = Field(description="`admin-token` or `operator:NAME`, as in the log of changes.")
    role: Role


@router.get("/me", summary="Who I am")
async def show_me(operator: ViewerDep) -> Myself:
    return Myself(actor=operator.actor, role=operator.role)


@router.get("/operators", summary="All operators, by name")
async def list_operators(services: ServicesDep, operator: ViewerDep) -> Listing[OperatorRecord]:
    return Listing(data=await services.operators.list())


@router.post("/operators", summary="Give somebody a token", status_code=201)
async def create_operator(services: ServicesDep, operator: AdminDep, new: NewOperator) -> CreatedOperator:
    """The token is in this answer and nowhere else."""
    record, token = await services.operators.create(new.name, new.role)
    await record_change(services, operator, "operator.create", f"operator:{new.name}", after=record)
    return CreatedOperator(token=token, **record.model_dump())


@router.delete("/operators/{name}", summary="Take a token away", responses=refusals(errors.OperatorNotFound))
async def delete_operator(services: ServicesDep, operator: AdminDep, name: Annotated[str, Path(max_length=64)]) -> Gone:
    """It is refused from its next request on."""
    record = await services.operators.delete(name)
    await record_change(services, operator, "operator.delete", f"operator:{name}", before=record)
    return Gone(id=name)
