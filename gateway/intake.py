"""What a paid call is noted down with before it is sent, so that any process can take in what it brings.

Used by `dispatch` for its own calls.
"""

from __future__ import annotations

from gateway import pricing
from gateway.job import Call, ImageJob
from gateway.routing import Choice
from gateway.store.callrecord import CallNote


def make_note(job: ImageJob, choice: Choice, call: Call) -> CallNote:
    """What finishes the call without the job: never a prompt, a picture or a key."""
    fit, target = choice.fit, choice.target
    terms = pricing.terms(target.prices, job, fit)
    return CallNote(
        upstream=target.upstream,
        credential=target.credential,
        slots=call.slots,
        format=job.output_format,
        compression=job.output_compression,
        size=str(fit.made) if fit.made else None,
        other_size=choice.other_size,
        quality=fit.quality,
        # Upstreams make opaque pictures unless they were told otherwise.
        background="transparent" if fit.background == "transparent" else "opaque",
        dropped=fit.dropped,
        prices=target.prices,
        given=terms.given,
        is_called_back=call.callback_url is not None,
    )
