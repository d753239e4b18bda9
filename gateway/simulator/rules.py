"""The rules of `POST /_faults`: the request that each fault applies to, and how often.

A rule counts only the requests that its fault applies to, not those refused for another reason.
"""

import itertools
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.simulator.faults import (
    Callback,
    DeadLink,
    Fault,
    Moment,
    NoPollUrl,
    Shape,
    StatusWords,
    TaskAnswer,
    TaskExpired,
    TaskFailed,
    TaskNever,
    moment_of,
)

Upstream = Literal["anyfast", "apiany", "openai"]
Endpoint = Literal["generations", "edits", "tasks", "upload", "files", "models", "balance"]
PAID: tuple[Endpoint, ...] = ("generations", "edits")

_APIANY_ONLY = (TaskFailed, TaskExpired, TaskNever, StatusWords, NoPollUrl, TaskAnswer, Callback)

F = TypeVar("F", bound=BaseModel)


class Rule(BaseModel):
    """One rule. Without `endpoint`: the paid endpoints (for `dead_link`: files); `*` is every endpoint."""

    model_config = ConfigDict(extra="forbid")

    upstream: Upstream | Literal["*"] = "*"
    model: str | None = None
    key: str | None = None
    endpoint: Endpoint | Literal["*"] | None = None
    times: int | None = Field(default=1, ge=1)
    skip: int = Field(default=0, ge=0)
    fault: Fault

    @model_validator(mode="after")
    def _is_possible(self) -> "Rule":
        if isinstance(self.fault, DeadLink):
            if self.endpoint not in (None, "files"):
                raise ValueError("dead_link strikes files only")
        elif moment_of(self.fault) == "work" and self.endpoint not in (None, "*", *PAID):
            raise ValueError(f"{self.fault.kind} strikes while pictures are made: generations or edits")
        if self.upstream not in ("apiany", "*") and isinstance(self.fault, _APIANY_ONLY):
            raise ValueError(f"{self.fault.kind} is apiany's alone")
        if isinstance(self.fault, Shape) and not self.fault.fits(self.upstream):
            raise ValueError(f"{self.upstream} knows no shape {self.fault.shape}")
        if moment_of(self.fault) == "headers" and self.model is not None:
            raise ValueError("the model is not known before the body is read")
        return self

    def matches(self, target: "Target") -> bool:
        endpoints = ("files",) if isinstance(self.fault, DeadLink) else PAID
        return (
            self.upstream in ("*", target.upstream)
            and (self.model is None or self.model == target.model)
            and (self.key is None or self.key == target.key)
            and (self.endpoint in ("*", target.endpoint) if self.endpoint else target.endpoint in endpoints)
        )


@dataclass(frozen=True)
class Target:
    """The facts of a request that rules compare. `model` and `key` are None where unknown."""

    upstream: str
    endpoint: str
    model: str | None
    key: str | None


@dataclass
class _Standing:
    id: str
    rule: Rule
    skip: int
    left: int | None
    struck: int = 0


class StruckFaults:
    """The faults of one request at one moment, at most one of each group."""

    def __init__(self, faults: list[BaseModel]) -> None:
        self.faults = faults

    def get(self, kind: type[F]) -> F | None:
        return next((fault for fault in self.faults if isinstance(fault, kind)), None)


class FaultTable:
    """The active rules, oldest first."""

    def __init__(self) -> None:
        self._standing: list[_Standing] = []
        self._numbers = itertools.count(1)

    def add(self, rule: Rule) -> dict[str, object]:
        standing = _Standing(id=f"rule_{next(self._numbers)}", rule=rule, skip=rule.skip, left=rule.times)
        self._standing.append(standing)
        return _show(standing)

    def take(self, target: Target, moment: Moment) -> list[Fault]:
        """The faults that apply to this request now; each counts as used."""
        taken: list[Fault] = []
        for standing in self._standing:
            fault = standing.rule.fault
            if moment_of(fault) != moment or standing.left == 0 or not standing.rule.matches(target):
                continue
            if any((one.group or one.kind) == (fault.group or fault.kind) for one in taken):
                continue
            if standing.skip:
                standing.skip -= 1
                continue
            standing.left = None if standing.left is None else standing.left - 1
            standing.struck += 1
            taken.append(fault)
            if fault.ends_request:
                break
        return taken

    def show(self) -> list[dict[str, object]]:
        return [_show(standing) for standing in self._standing]

    def remove(self, rule_id: str) -> bool:
        kept = [standing for standing in self._standing if standing.id != rule_id]
        is_known = len(kept) < len(self._standing)
        self._standing = kept
        return is_known

    def clear(self) -> None:
        self._standing.clear()


def _show(standing: _Standing) -> dict[str, object]:
    return {
        "id": standing.id,
        **standing.rule.model_dump(mode="json", exclude_defaults=True),
        "left": standing.left,
        "struck": standing.struck,
    }
