"""Operators of the admin API: their tokens and roles."""

from __future__ import annotations

from pydantic import Field

from gateway.callers.operator_store import OperatorRecord, Role
from gateway.operations.answers import Deleted, Listing
from gateway.operations.changes import Actor, record_change
from gateway.operations.stores import Stores


class CreatedOperator(OperatorRecord):
    """An operator with the token, which nothing can show again."""

    token: str = Field(description="Shown this once.")


async def list_operators(stores: Stores) -> Listing[OperatorRecord]:
    """All operators, in the order of their names."""
    return Listing(data=await stores.operators.list())


async def create_operator(stores: Stores, actor: Actor, name: str, role: Role) -> CreatedOperator:
    """Create an operator, and log the change; return it with its token. Raises InvalidValue for a taken name."""
    record, token = await stores.operators.create(name, role)
    await record_change(stores, actor, "operator.create", f"operator:{name}", after=record)
    return CreatedOperator(token=token, **record.model_dump())


async def delete_operator(stores: Stores, actor: Actor, name: str) -> Deleted:
    """Delete an operator, and log the change; the token is refused at once. Raises OperatorNotFound."""
    record = await stores.operators.delete(name)
    await record_change(stores, actor, "operator.delete", f"operator:{name}", before=record)
    return Deleted(id=name)
