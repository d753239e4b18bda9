"""An Outcome becomes OpenAI's answer: `b64_json` or `url`, JSON or events, streamed from the artifacts.

Called by `pipeline`. Never holds a picture whole, and never answers 200 with an error inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from gateway import allowance, errors
from gateway.artifacts import base64_chunks, base64_length
from gateway.artifacts.links import link
from gateway.dispatch import Outcome
from gateway.job import Usage
from gateway.money import show_usd
from gateway.receiving import Image
from gateway.routing import Choice, Plan
from gateway.services import Services
from gateway.tasks import Delivered, Ending, PartlyDelivered, StillRunning, Task, name_ending

FIRST_EVENT_WITHIN = 15.0
"""Seconds that a stream's status waits for its first image; a failure until then keeps its own status."""

MOST_NAMED = 32
"""Dropped parameters that the answer's header names one by one."""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How the caller wants its answer. `base_url` is where links begin; the rest is in seconds."""

    response_format: Literal["b64_json", "url"]
    stream: bool
    base_url: str
    answer_within: float
    keep_alive: float


@dataclass(frozen=True, slots=True)
class Shaped:
    """An answer of status 200: headers, its length where it is known, and its bytes as they are sent."""

    media_type: str
    body: AsyncIterator[bytes]
    length: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A picture as a JSON string that is not in memory: `length` bytes of base64."""

    artifact_id: str
    length: int


_Part = bytes | _Stored


def shape(services: Services, task: Task, ending: Ending, form: AnswerForm) -> Shaped:
    """The JSON answer of an ended task. Raises the PublicError of any other ending, with the task's headers."""
    if isinstance(ending, Delivered | PartlyDelivered):
        parts = list(_json_parts(services, task.plan, ending.outcome, form))
        length = sum(len(part) if isinstance(part, bytes) else part.length for part in parts)
        headers = describe(task, ending.outcome)
        return Shaped("application/json", _send(services, parts), length, headers)
    raise _explain(task, ending)


async def shape_stream(services: Services, task: Task, form: AnswerForm) -> Shaped:
    """The event stream of a task. Raises PublicError when it ends without an image before the stream began."""
    first = await _next(task, min(FIRST_EVENT_WITHIN, form.keep_alive))
    if isinstance(first, Outcome) and not first.images:
        raise _explain(task, name_ending(first))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no", "x-gateway-task": task.id}
    headers |= allowance.rate_headers(task.reservation.rates)
    return Shaped("text/event-stream", _events(services, task, form, first), None, headers)


def describe(task: Task, outcome: Outcome) -> dict[str, str]:
    """What the gateway did, as answer headers."""
    headers = {
        "x-gateway-task": task.id,
        "x-gateway-upstream": ",".join(outcome.upstreams),
        "x-gateway-calls": str(outcome.calls),
        "x-gateway-size": _tell_sizes(task, outcome.images),
    }
    headers |= _describe_money(task)
    if len(outcome.images) < task.job.n:
        headers["x-gateway-delivered"] = f"{len(outcome.images)}/{task.job.n}"
    # Real parameters before names that nobody knows, of which there may be too many to tell.
    if dropped := (*outcome.dropped, *task.job.dropped):
        headers["x-gateway-dropped-params"] = _name_list(dropped)
    return headers


def _describe_money(task: Task) -> dict[str, str]:
    """What the task has cost so far, and what its caller's limits a minute leave."""
    spent = task.reservation.spent
    cost = {} if spent is None else {"x-gateway-cost-usd": show_usd(spent)}
    return cost | allowance.rate_headers(task.reservation.rates)


def _explain(task: Task, ending: Ending) -> errors.PublicError:
    """The error of an ending without images."""
    if isinstance(ending, StillRunning):
        error: errors.PublicError = errors.TaskStillRunning(
            f"The image is still being made (task {ending.task_id}); the work goes on.", should_retry=False
        )
    elif isinstance(ending, Delivered | PartlyDelivered):
        error = errors.InternalError("The gateway lost its answer.", should_retry=False)
    else:
        error = ending.error
    error.headers |= {"x-gateway-task": task.id} | _describe_money(task)
    return error


def _json_parts(services: Services, plan: Plan, outcome: Outcome, form: AnswerForm) -> list[_Part]:
    first = outcome.images[0].artifact
    choice = _find_choice(plan, outcome.images[0])
    head: dict[str, Any] = {"created": first.created, "background": _background(choice), "output_format": first.format}
    # Where no quality was sent, the vendor's own choice is not known, and a guess would pass for a fact.
    if choice and choice.fit.quality:
        head["quality"] = choice.fit.quality
    head["size"] = f"{first.width}x{first.height}"
    if outcome.usage:
        head["usage"] = _usage(outcome.usage)
    parts: list[_Part] = [orjson.dumps(head)[:-1] + b',"data":[']
    for index, image in enumerate(outcome.images):
        parts.append(b"," if index else b"")
        parts += _item_parts(services, image, form, {"revised_prompt": image.revised_prompt})
    parts.append(b"]}")
    return parts


def _item_parts(services: Services, image: Image, form: AnswerForm, rest: dict[str, Any]) -> list[_Part]:
    """One object that holds the image in the form asked for, and then `rest` without its absent values."""
    more = {name: value for name, value in rest.items() if value is not None}
    artifact = image.artifact
    if form.response_format == "url":
        path = link(artifact.id, artifact.expires, services.signing_key)
        return [orjson.dumps({"url": form.base_url + path} | more)]
    tail = b'"' + (b"," + orjson.dumps(more)[1:] if more else b"}")
    return [b'{"b64_json":"', _Stored(artifact.id, base64_length(artifact.size)), tail]


async def _events(
    services: Services, task: Task, form: AnswerForm, first: Image | Outcome | None
) -> AsyncIterator[bytes]:
    """Completed events as images arrive, comments in between, at the end what is missing."""
    sent = 0
    event: Image | Outcome | None = first
    while True:
        if event is None:
            yield b": keep-alive\n\n"
        elif isinstance(event, Outcome):
            break
        else:
            async for piece in _send(services, _event_parts(services, task, event, form)):
                yield piece
            sent += 1
        event = await _next(task, form.keep_alive)
    if sent == 0:
        error = _explain(task, name_ending(event)).body()
        yield b"event: error\ndata: " + orjson.dumps(error) + b"\n\n"
    elif sent < task.job.n:
        yield f": partial {sent}/{task.job.n}\n\n".encode()


def _event_parts(services: Services, task: Task, image: Image, form: AnswerForm) -> list[_Part]:
    artifact = image.artifact
    choice = _find_choice(task.plan, image)
    kind = "image_generation.completed" if task.job.operation == "generation" else "image_edit.completed"
    rest = {
        "type": kind,
        "created_at": artifact.created,
        "output_format": artifact.format,
        "quality": (choice.fit.quality if choice else None) or "auto",
        "background": _background(choice),
        "size": f"{artifact.width}x{artifact.height}",
        "revised_prompt": image.revised_prompt,
        "usage": _usage(image.usage) if image.usage else None,
        "gateway": {
            "task": task.id,
            "index": image.slot,
            "upstream": image.upstream,
            "cost_usd": None if image.usd is None else show_usd(image.usd),
            "size": _tell_sizes(task, [image]),
            "dropped": [*(choice.fit.dropped if choice else ()), *task.job.dropped],
        },
    }
    return [f"event: {kind}\ndata: ".encode(), *_item_parts(services, image, form, rest), b"\n\n"]


async def _next(task: Task, seconds: float) -> Image | Outcome | None:
    """The next image; the Outcome once all images were handed out; None when `seconds` passed without either."""
    if not task.arrived.empty():
        return task.arrived.get_nowait()
    arrival = asyncio.ensure_future(task.arrived.get())
    try:
        await asyncio.wait({arrival, task.done}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if arrival.done():
            return arrival.result()
    finally:
        arrival.cancel()
    if not task.done.done():
        return None
    return task.done.result() if task.arrived.empty() else task.arrived.get_nowait()


async def _send(services: Services, parts: list[_Part]) -> AsyncIterator[bytes]:
    """The parts as bytes; pictures are read, encoded and handed on a piece at a time."""
    waiting = b""
    for part in parts:
        if isinstance(part, bytes):
            waiting += part
            continue
        stored = await services.artifacts.open(part.artifact_id)
        if stored is None:
            # The length is promised; breaking off is the only honest way to say that the picture is gone.
            raise RuntimeError(f"artifact {part.artifact_id} vanished while it was being sent")
        async for piece in base64_chunks(stored.chunks):
            yield waiting + piece if waiting else piece
            waiting = b""
    if waiting:
        yield waiting


def _find_choice(plan: Plan, image: Image) -> Choice | None:
    """How the credential that made the image was asked."""
    return next((choice for choice in plan.choices if choice.target.label == image.target), None)


def _tell_sizes(task: Task, images: Sequence[Image]) -> str:
    """Asked and made, each size once; and what one was made into here, where another had been promised."""
    made = dict.fromkeys(f"{one.made}->{one.size}" if one.size != one.made else str(one.made) for one in images)
    return f"{task.job.size or 'auto'}->{','.join(made) or 'none'}"


def _background(choice: Choice | None) -> str:
    """Upstreams make opaque pictures unless they were told otherwise."""
    return "transparent" if choice and choice.fit.background == "transparent" else "opaque"


def _usage(usage: Usage) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    # A zero that nobody counted would pass for a count.
    if usage.text_tokens is not None and usage.image_tokens is not None:
        counts["input_tokens_details"] = {"text_tokens": usage.text_tokens, "image_tokens": usage.image_tokens}
    return counts


def _name_list(names: Sequence[str]) -> str:
    """Field names as one header; SDKs read only so much, so of very many the rest is counted."""
    shown = names[:MOST_NAMED]
    more = [f"+{len(names) - len(shown)}"] if len(names) > len(shown) else []
    return ",".join([*(_header_safe(name) for name in shown), *more])


def _header_safe(name: str) -> str:
    """A field name as a header may hold it: callers choose these names."""
    return "".join(char if char.isascii() and (char.isalnum() or char in "_.-[]") else "?" for char in name)[:60]
