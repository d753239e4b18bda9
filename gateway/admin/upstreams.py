"""How the upstreams are: each credential's state, places, balance and latencies; and a fresh start for one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from fastapi import APIRouter, Path
from pydantic import Field

from gateway import errors
from gateway.admin.access import AdminDep, ServicesDep, ViewerDep
from gateway.admin.guarded import GuardedRoute
from gateway.admin.recording import record_change
from gateway.admin.shapes import AnswerModel, Gone, Instant, Listing, Usd, refusals
from gateway.catalogue.catalogue import Target
from gateway.health.condition import Condition
from gateway.health.drift import Drift, count_drifts, group_drifts
from gateway.health.health import caps_of
from gateway.services import Services

router = APIRouter(route_class=GuardedRoute, tags=["upstreams"])

Label = Annotated[str, Path(max_length=201, description="As listed: the upstream's name, a slash, the credential's.")]

TargetName = Annotated[str, Path(max_length=100, description="The upstream's name in the catalogue.")]


class Typical(AnswerModel):
    """How long good calls of one quality and resolution took."""

    kind: str = Field(description="Quality and resolution, as in `high/2K`.")
    seconds: float = Field(description="The median.")
    samples: int


class BrokenPromise(AnswerModel):
    """Where the vendor is not as the catalogue says."""

    kind: str = Field(description="`made` another thing than was promised, or `refused` what its abilities allow.")
    what: str = Field(description="The parameter.")
    count: int
    last: Instant


class UpstreamState(AnswerModel):
    """One credential of an upstream, as all processes know it."""

    label: str
    state: str = Field(
        description="`ok`, `half_open`, `circuit_open`, `rate_limited`, `credential_rejected`, `low_balance` or "
        "`paused_by_spend_limit`."
    )
    seconds: float = Field(description="For how long it stays so; 0: it depends, or it is well.")
    breaker: str = Field(description="`closed`, `open`, or `half_open`: one call at a time goes to it.")
    in_flight: int = Field(description="Calls under way.")
    max_concurrent: int | None
    presumed_usd: Usd = Field(description="Charged in the last hour for outcomes that nobody knows.")
    balance: str | None = Field(description="Credits, where the vendor tells them.")
    min_balance: int | None
    checked: Instant | None = Field(description="When a free call last asked it.")
    trouble: str | None = Field(description="What that call met, if anything.")
    latencies: list[Typical]
    drift: list[BrokenPromise] = Field(description="Of the whole upstream, in the last 90 days.")

    @classmethod
    def of(cls, target: Target, condition: Condition, drifts: Sequence[Drift]) -> Self:
        caps = caps_of(target)
        state, seconds = condition.describe(has_floor=caps.has_floor, spend_limit=caps.spend_limit)
        return cls(
            label=target.label,
            state=state,
            seconds=round(seconds, 3),
            breaker=condition.breaker,
            in_flight=condition.in_flight,
            max_concurrent=target.credential_config.max_concurrent,
            presumed_usd=condition.presumed,
            balance=condition.balance,
            min_balance=target.credential_config.min_balance,
            checked=condition.checked,
            trouble=condition.trouble or None,
            latencies=[
                Typical(kind=kind, seconds=one.median, samples=one.samples)
                for kind, one in sorted(condition.latencies.items())
            ],
            drift=[
                BrokenPromise(kind=one.kind, what=one.what, count=one.count, last=one.last)
                for one in drifts
                if one.upstream == target.upstream
            ],
        )


@router.get("/upstreams", summary="How every upstream's credentials are")
async def list_upstreams(services: ServicesDep, operator: ViewerDep) -> Listing[UpstreamState]:
    """Those that are on, in the catalogue's order."""
    targets = services.health.targets
    found = await services.health.store.look(list(targets))
    drifts = await services.drift.read()
    return Listing[UpstreamState](data=[UpstreamState.of(targets[label], one, drifts) for label, one in found.items()])


@router.post(
    "/upstreams/{label:path}/reset", summary="Use a credential again", responses=refusals(errors.UpstreamNotFound)
)
async def reset_upstream(services: ServicesDep, operator: AdminDep, label: Label) -> UpstreamState:
    """Closes its breaker, ends its cool-down, forgets a low balance, releases the spend brake."""
    if label not in services.health.targets:
        raise errors.UpstreamNotFound("No upstream that is on has this label.", param="label")
    before = await _show(services, label)
    await services.health.store.reset(label)
    services.health.forget()
    after = await _show(services, label)
    await record_change(
        services, operator, "upstream.reset", label, before={"state": before.state}, after={"state": after.state}
    )
    return after


@router.delete("/upstreams/{name:path}/drift", summary="Forget drift", responses=refusals(errors.UpstreamNotFound))
async def clear_drift(services: ServicesDep, operator: AdminDep, name: TargetName) -> Gone:
    """What was counted of the whole upstream is gone: its entry in the catalogue was put right."""
    if name not in services.catalogue.document.upstreams:
        raise errors.UpstreamNotFound("The catalogue has no upstream of this name.", param="name")
    before = group_drifts(await services.drift.read()).get(name, [])
    await services.drift.clear(name)
    await record_change(services, operator, "upstream.clear_drift", name, before=count_drifts(before))
    return Gone(id=name)


async def _show(services: Services, label: str) -> UpstreamState:
    found = await services.health.store.look([label])
    return UpstreamState.of(services.health.targets[label], found[label], await services.drift.read())
