"""What one paid call goes out with: where its vendor may call back, what finishes it elsewhere, and its bridge.

Used by `dispatch`, which decides whether and where a call is sent.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

from gateway.delivery.bridge import Bridge
from gateway.delivery.callbacks import CallbackListener, hear
from gateway.delivery.intake import make_note
from gateway.delivery.rhythm import Rhythm
from gateway.delivery.slots import UnderWay
from gateway.health import health
from gateway.health.health import Permit
from gateway.jobs.job import Call, ImageJob, Inputs
from gateway.money.reservation import Reservation
from gateway.routing.plan import Choice
from gateway.services import Services
from gateway.upstreams.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Sender:
    """One task's."""

    services: Services
    reservation: Reservation
    job: ImageJob

    def begin(self, choice: Choice, call: Call, permit: Permit, inputs: Inputs) -> UnderWay:
        """A call as it is to be sent."""
        callbacks = self.services.callbacks
        if callbacks is not None and inputs.takes_callback:
            address = callbacks.address(choice.target.config.kind, self.reservation.task, call.id)
            call = replace(call, callback_url=address)
        return UnderWay(choice, call, permit, make_note(self.job, choice, call))

    def listen(self, under_way: UnderWay) -> AbstractContextManager[CallbackListener]:
        """An ear for the call's callbacks, from before it is sent."""
        is_called_back = under_way.call.callback_url is not None
        return hear(self.services, under_way.choice.target, under_way.call.id, is_called_back=is_called_back)

    def reach(self, under_way: UnderWay, ear: CallbackListener) -> Bridge:
        """The bridge for the call."""
        services, choice, call = self.services, under_way.choice, under_way.call
        target = choice.target

        def doubt(verdict: Verdict) -> None:
            # The breaker must hear of it now, and those calls need the place that are answered.
            services.concurrency_queue.finish(under_way.permit, health.report_failure(verdict, target))

        return Bridge(
            target,
            services.upstreams[target.label],
            services.fetcher,
            Rhythm.of(services.health.latency(choice.fit, target), is_told=ear.trust.is_earned),
            ear,
            resting=partial(services.shutdown.resting, self.reservation.task, call.id),
            keep=partial(self.reservation.keep, call, under_way.note),
            doubt=doubt,
        )
