"""The state of each credential: circuit breaker, calls, balance, latencies; and the drift of its upstream.

Drift is counted for an upstream, not for a credential. One action resets a credential; another deletes the counted
drift of an upstream.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Self

from pydantic import Field

from gateway import errors
from gateway.catalogue.document import Document
from gateway.catalogue.upstream import Credential, Upstream
from gateway.health.condition import Block, Condition, State, find_pause, make_caps
from gateway.health.drift import Drift, count_drifts, group_drifts
from gateway.health.health import TargetStore
from gateway.operations.answers import AnswerModel, Deleted, Instant, Listing, Usd
from gateway.operations.changes import Actor, record_change
from gateway.operations.stores import Stores

_Credentials = Mapping[str, tuple[str, Upstream, Credential]]
"""For each label: the upstream's name, its entry in the catalogue, and the credential."""


class TypicalLatency(AnswerModel):
    """The median duration of the last good calls of one quality and resolution."""

    kind: str = Field(description="Quality and resolution, as in `high/2K`.")
    seconds: float = Field(description="The median.")
    samples: int


class Deviation(AnswerModel):
    """One kind of deviation of an upstream from its entry in the catalogue, with its count."""

    kind: str = Field(description="`made`: another thing than promised; `refused`: a request its abilities allow.")
    what: str = Field(description="The parameter.")
    count: int
    last: Instant


class UpstreamState(AnswerModel):
    """The state of one credential, which all processes share, and the drift of its upstream."""

    label: str
    state: State = Field(
        description="`ok`, `half_open`, `circuit_open`, `rate_limited`, `credential_rejected`, `low_balance`, "
        "`paused_by_spend_limit`, or `paused` by an operator."
    )
    seconds: float = Field(description="For how long it stays so; 0: not known, or `ok`.")
    breaker: str = Field(description="`closed`, `open`, or `half_open`: one call at a time tries it.")
    in_flight: int = Field(description="Calls under way.")
    max_concurrent: int | None
    presumed_usd: Usd = Field(description="Charged in the last hour for calls whose outcome is not known.")
    balance: str | None = Field(description="Credits, where the vendor reports them.")
    min_balance: int | None
    checked: Instant | None = Field(description="The time of the last free call that checked it.")
    trouble: str | None = Field(description="The failure of that check, if any.")
    latencies: list[TypicalLatency]
    drift: list[Deviation] = Field(description="Of the whole upstream, in the last 90 days.")

    @classmethod
    def of(
        cls,
        label: str,
        upstream: Upstream,
        credential: Credential,
        condition: Condition,
        drifts: Sequence[Drift],
        pause: Block | None,
    ) -> Self:
        caps = make_caps(credential, upstream.health)
        state, seconds = condition.describe(has_floor=caps.has_floor, spend_limit=caps.spend_limit)
        if pause is not None:
            state, seconds = pause.reason, pause.wait
        return cls(
            label=label,
            state=state,
            seconds=round(seconds, 3),
            breaker=condition.breaker,
            in_flight=condition.in_flight,
            max_concurrent=credential.max_concurrent,
            presumed_usd=condition.presumed,
            balance=condition.balance,
            min_balance=credential.min_balance,
            checked=condition.checked,
            trouble=condition.trouble or None,
            latencies=[
                TypicalLatency(kind=kind, seconds=one.median, samples=one.samples)
                for kind, one in sorted(condition.latencies.items())
            ],
            drift=[Deviation(kind=one.kind, what=one.what, count=one.count, last=one.last) for one in drifts],
        )


async def list_upstreams(stores: Stores, labels: Collection[str] | None = None) -> Listing[UpstreamState]:
    """Return the state of the credentials with these labels, in the catalogue's order.

    None is every credential in the catalogue, configured or not.
    """
    return Listing[UpstreamState](data=await _look(stores, _list_credentials(stores.document, labels)))


async def reset_upstream(
    stores: Stores, actor: Actor, label: str, labels: Collection[str] | None = None
) -> UpstreamState:
    """Close a credential's circuit breaker; end its cool-down, its low balance and its pause by the spend limit.

    Logs the change, and returns the new state. Raises UpstreamNotFound for a label that is not among `labels`; None is
    every label in the catalogue.
    """
    known = _list_credentials(stores.document, labels)
    if label not in known:
        raise errors.UpstreamNotFound(
            f"No configured credential has this label; there are {', '.join(known)}.", param="label"
        )
    wanted = {label: known[label]}
    (before,) = await _look(stores, wanted)
    await TargetStore(stores.command_queue).reset(label)
    (after,) = await _look(stores, wanted)
    states = {"before": {"state": before.state}, "after": {"state": after.state}}
    await record_change(stores, actor, "upstream.reset", label, **states)
    return after


async def clear_drift(stores: Stores, actor: Actor, name: str) -> Deleted:
    """Delete the counted drift of an upstream, for all its credentials, and log the change. Raises UpstreamNotFound."""
    check_upstream(stores, name)
    before = group_drifts(await stores.drift.read()).get(name, [])
    await stores.drift.clear(name)
    await record_change(stores, actor, "upstream.clear_drift", name, before=count_drifts(before))
    return Deleted(id=name)


def check_upstream(stores: Stores, name: str, param: str = "name") -> None:
    """Raise UpstreamNotFound, with this `param`, for the name of an upstream that the catalogue does not have."""
    known = stores.document.upstreams
    if name not in known:
        raise errors.UpstreamNotFound(
            f"The catalogue has no upstream of this name; there are {', '.join(known)}.", param=param
        )


async def _look(stores: Stores, credentials: _Credentials) -> list[UpstreamState]:
    found, pauses = await TargetStore(stores.command_queue).look_with_pauses(list(credentials))
    drifts = group_drifts(await stores.drift.read())
    return [
        UpstreamState.of(label, upstream, credential, found[label], drifts.get(name, []), find_pause(pauses, name))
        for label, (name, upstream, credential) in credentials.items()
    ]


def _list_credentials(document: Document, labels: Collection[str] | None) -> _Credentials:
    found = {
        f"{name}/{credential.name}": (name, upstream, credential)
        for name, upstream in document.upstreams.items()
        for credential in upstream.credentials
    }
    return found if labels is None else {label: one for label, one in found.items() if label in labels}
