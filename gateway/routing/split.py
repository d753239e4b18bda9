"""One job of n images as calls that a target allows, and what the calls made as one answer. Pure functions.

Asked by `dispatch`, which sends the calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.catalogue.capabilities import Fit
from gateway.ids import new_id
from gateway.jobs.job import Call, ImageJob


def split(job: ImageJob, fit: Fit, slots: Sequence[int]) -> list[Call]:
    """Calls of at most `fit.per_call` images that together fill `slots`, in order."""
    groups = [tuple(slots[start : start + fit.per_call]) for start in range(0, len(slots), fit.per_call)]
    return [
        Call(
            id=new_id("call"),
            slots=group,
            operation=job.operation,
            prompt=job.prompt,
            size=fit.size,
            quality=fit.quality,
            output_format=fit.output_format,
            compression=None if fit.transcode else job.output_compression,
            moderation=fit.moderation,
            background=fit.background,
            end_user=job.end_user if fit.passes_user else None,
        )
        for group in groups
    ]
