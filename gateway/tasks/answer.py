"""OpenAI's answer from a task's record: `b64_json` or `url`, JSON or events, streamed from the artifacts.

It needs only the record and the artifacts, so that any process answers for any task. It never holds a whole picture in
memory. A JSON answer of status 200 never has an error inside; a stream that has begun reports one as an event.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson
import pybase64

from gateway import errors
from gateway.artifacts.links import link
from gateway.dollars import show_usd
from gateway.money import limit_messages
from gateway.services import Services
from gateway.state.task_store import Promise, TaskImage, TaskRecord
from gateway.tasks.task import Delivered, Ending, PartlyDelivered, StillRunning, name_ending
from gateway.tasks.wait import LOST_AFTER_S, TaskWait

FIRST_EVENT_WITHIN = 15.0
"""Most seconds for which a stream waits for its first image before status 200; an earlier failure has its status."""

_LITTLE = 16 * 1024
"""A piece of fewer bytes is joined to the next one: sending it costs more than copying it."""

MOST_NAMED = 32
"""Most dropped parameters that the answer's header names one by one."""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The form of the answer. Links begin with `base_url`. `answer_within` is the time limit of the answer in seconds.

    `keep_alive` is the seconds after which a stream without an image sends a comment. `partial_images` is the number of
    partial images that the caller of a stream would accept.
    """

    response_format: Literal["b64_json", "url"]
    stream: bool
    base_url: str
    answer_within: float
    keep_alive: float
    partial_images: int = 0


@dataclass(frozen=True, slots=True)
class Shaped:
    """An answer of status 200 or 202: its headers, its bytes as they are sent, and their number, None if unknown."""

    media_type: str
    body: AsyncIterator[bytes]
    length: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A stored picture that is sent as `length` bytes of base64."""

    artifact_id: str
    length: int


Part = bytes | StoredPicture


def shape(waiting: TaskWait, ending: Ending, form: AnswerForm) -> Shaped:
    """Return the JSON answer of a task with images. Raises any other ending's PublicError, with the task's headers."""
    if isinstance(ending, Delivered | PartlyDelivered):
        parts = _json_parts(waiting.services, ending.record, form)
        return shape_parts(waiting.services, parts, describe(waiting, ending.record))
    raise _explain(waiting, ending)


async def shape_stream(waiting: TaskWait, form: AnswerForm) -> Shaped:
    """Wait for the first image, up to the shorter of FIRST_EVENT_WITHIN and `keep_alive`, and return the event stream.

    Raises PublicError when the task ends without an image before that, and when this process ends first; and
    CallerDisconnected.
    """
    record = await waiting.wait_for_images(0, min(FIRST_EVENT_WITHIN, form.keep_alive))
    if record is None and waiting.is_cut:
        raise _explain(waiting, StillRunning(waiting.task))
    if record is not None and not record.images:
        raise _explain(waiting, name_ending(record))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"} | identify(waiting)
    headers |= limit_messages.rate_headers(waiting.rates)
    return Shaped("text/event-stream", _events(waiting, form, record), None, headers)


async def shape_accepted(waiting: TaskWait, form: AnswerForm) -> Shaped:
    """Wait for the task's record, and return the answer 202: the task, and the address at which it can be polled.

    Raises InternalError when the task has no record after LOST_AFTER_S, and CallerDisconnected.
    """
    # -1: return as soon as there is a record.
    record = await waiting.wait_for_images(-1, LOST_AFTER_S)
    if record is None:
        raise errors.InternalError("The gateway lost the task.", should_retry=False)
    task = shape_task(waiting.services, record, form, record.status_at(time.time()))
    headers = identify(waiting) | limit_messages.rate_headers(waiting.rates)
    headers |= {"location": f"/v1/tasks/{record.id}", "retry-after": "1"}
    return replace(shape_parts(waiting.services, task, headers), status=202)


def describe_task(record: TaskRecord, base_url: str, status: str) -> dict[str, Any]:
    """Return the task object as JSON values, without its result."""
    end = record.end
    return {
        "task_id": record.id,
        "object": "image.task",
        "status": status,
        "created_at": record.promise.created,
        "completed_at": end.completed if end else None,
        "model": record.promise.model,
        "poll_url": f"{base_url}/v1/tasks/{record.id}",
        "cost_usd": None if end is None or end.spent is None else show_usd(end.spent),
        "error": errors.read_error(end.error).body()["error"] if end and end.error else None,
    }


def shape_task(services: Services, record: TaskRecord, form: AnswerForm, status: str) -> list[Part]:
    """Return the parts of the task object. It holds the images if `status` is `succeeded`."""
    head = describe_task(record, form.base_url, status)
    parts: list[Part] = [orjson.dumps(head)[:-1] + b',"result":']
    parts += _json_parts(services, record, form) if status == "succeeded" else [b"null"]
    return [*parts, b"}"]


def shape_parts(services: Services, parts: list[Part], headers: dict[str, str]) -> Shaped:
    """Return a JSON answer made of these parts."""
    return Shaped("application/json", _send(services, parts), _count_bytes(parts), headers)


def _count_bytes(parts: Sequence[Part]) -> int:
    return sum(len(part) if isinstance(part, bytes) else part.length for part in parts)


def identify(waiting: TaskWait) -> dict[str, str]:
    """Return the headers for the task's id, for a request that joined the task, and for a replay of its answer."""
    headers = {"x-gateway-task": waiting.task}
    if waiting.is_joined:
        headers["x-gateway-joined"] = "1"
    if waiting.is_replay:
        headers["idempotent-replayed"] = "true"
    return headers


def describe(waiting: TaskWait, record: TaskRecord) -> dict[str, str]:
    """Return the headers that describe the task: upstreams, calls, sizes, cost, dropped parameters, and rates."""
    end, promise, images = record.end, record.promise, record.images
    headers = identify(waiting) | {
        "x-gateway-upstream": ",".join(end.upstreams if end else ()),
        "x-gateway-calls": str(end.calls if end else 0),
        "x-gateway-size": _describe_sizes(promise, images),
    }
    headers |= _describe_money(waiting, record)
    if len(images) < promise.n:
        headers["x-gateway-delivered"] = f"{len(images)}/{promise.n}"
    # Known parameters come before unknown names, of which there may be too many to list.
    if dropped := (*(end.dropped if end else ()), *promise.dropped):
        headers["x-gateway-dropped-params"] = _name_list(dropped)
    return headers


def _describe_money(waiting: TaskWait, record: TaskRecord | None) -> dict[str, str]:
    """Return the headers for the task's cost, if it is known, and for the rest of the caller's limits a minute."""
    spent = record.end.spent if record and record.end else None
    cost = {} if spent is None else {"x-gateway-cost-usd": show_usd(spent)}
    return cost | limit_messages.rate_headers(waiting.rates)


def _explain(waiting: TaskWait, ending: Ending) -> errors.PublicError:
    """Make the error of an ending without images, with the task's headers."""
    if isinstance(ending, StillRunning):
        error: errors.PublicError = errors.TaskStillRunning(
            f"The image is still being made (task {ending.task_id}); send the same request again to get it.",
            retry_after=1,
            should_retry=True,
        )
    elif isinstance(ending, Delivered | PartlyDelivered):
        error = errors.InternalError("The gateway lost its answer.", should_retry=False)
    else:
        error = ending.error
    record = None if isinstance(ending, StillRunning) else ending.record
    error.headers |= identify(waiting) | _describe_money(waiting, record)
    return error


def _json_parts(services: Services, record: TaskRecord, form: AnswerForm) -> list[Part]:
    first, end = record.images[0], record.end
    head: dict[str, Any] = {"created": first.created, "background": first.background, "output_format": first.format}
    # Where no quality was sent, the vendor's own choice is not known.
    if first.quality:
        head["quality"] = first.quality
    head["size"] = first.size
    if end and end.usage:
        head["usage"] = _usage(end.usage)
    parts: list[Part] = [orjson.dumps(head)[:-1] + b',"data":[']
    for index, image in enumerate(record.images):
        parts.append(b"," if index else b"")
        parts += _item_parts(services, image, form, {"revised_prompt": image.revised_prompt})
    parts.append(b"]}")
    return parts


def _item_parts(services: Services, image: TaskImage, form: AnswerForm, rest: dict[str, Any]) -> list[Part]:
    """Return the parts of one JSON object: the image as a link or as base64, and `rest` without its None values.

    In a stream the image is always base64.
    """
    more = {name: value for name, value in rest.items() if value is not None}
    if form.response_format == "url" and not form.stream:
        return [orjson.dumps({"url": _link(services, image, form)} | more)]
    tail = b'"' + (b"," + orjson.dumps(more)[1:] if more else b"}")
    return [b'{"b64_json":"', StoredPicture(image.artifact, base64_length(image.bytes)), tail]


def _link(services: Services, image: TaskImage, form: AnswerForm) -> str:
    return form.base_url + link(image.artifact, image.expires, services.signing_key)


async def _events(waiting: TaskWait, form: AnswerForm, record: TaskRecord | None) -> AsyncIterator[bytes]:
    """Yield an event for each image as it arrives, and comments in between.

    At the end, yield a comment on missing images; if there is no image at all, yield an `error` event.
    """
    sent: set[int] = set()
    wanted = 0
    while True:
        if record is None:
            yield b": keep-alive\n\n"
        else:
            wanted = record.promise.n
            for image in record.images:
                if image.slot in sent:
                    continue
                async for piece in _send(waiting.services, _event_parts(waiting, record, image, form)):
                    yield piece
                sent.add(image.slot)
            if record.end is not None:
                break
        record = await waiting.wait_for_images(len(sent), form.keep_alive)
        if record is None and waiting.is_cut:
            # The retry gets all images, these too.
            await waiting.leave()
            break
    if not sent:
        ending = name_ending(record) if record else StillRunning(waiting.task)
        yield b"event: error\ndata: " + orjson.dumps(_explain(waiting, ending).body()) + b"\n\n"
    elif len(sent) < wanted:
        yield f": partial {len(sent)}/{wanted}\n\n".encode()


def _event_parts(waiting: TaskWait, record: TaskRecord, image: TaskImage, form: AnswerForm) -> list[Part]:
    """Return the parts of one event. It has OpenAI's fields, with the image as base64, and `gateway` with more."""
    promise = record.promise
    gateway: dict[str, Any] = {
        "task": record.id,
        "index": image.slot,
        "upstream": image.upstream,
        "cost_usd": None if image.usd is None else show_usd(image.usd),
        "size": _describe_sizes(promise, [image]),
        "dropped": [*image.dropped, *promise.dropped],
    }
    if form.response_format == "url":
        gateway["url"] = _link(waiting.services, image, form)
    if form.partial_images:
        # OpenAI's own models may send fewer too; no upstream sends any.
        gateway["partial_images"] = f"0/{form.partial_images}"
    kind = "image_generation.completed" if promise.operation == "generation" else "image_edit.completed"
    rest = {
        "type": kind,
        "created_at": image.created,
        "output_format": image.format,
        "quality": image.quality or "auto",
        "background": image.background,
        "size": image.size,
        "revised_prompt": image.revised_prompt,
        "usage": _usage(image.usage) if image.usage else None,
        "gateway": gateway,
    }
    return [f"event: {kind}\ndata: ".encode(), *_item_parts(waiting.services, image, form, rest), b"\n\n"]


async def _send(services: Services, parts: Sequence[Part]) -> AsyncIterator[bytes]:
    """Yield the parts as bytes; pictures are read and encoded a piece at a time, and small pieces are joined.

    Raises RuntimeError for a picture that is gone: the length was sent, so only a broken connection reports it.
    """
    waiting = b""
    for part in parts:
        if isinstance(part, bytes):
            waiting += part
            continue
        stored = await services.artifacts.open(part.artifact_id)
        if stored is None:
            # The length was sent already; only breaking off tells the caller that the picture is gone.
            raise RuntimeError(f"artifact {part.artifact_id} vanished while it was being sent")
        async for piece in base64_chunks(stored.chunks):
            waiting = waiting + piece if waiting else piece
            if len(piece) >= _LITTLE:
                yield waiting
                waiting = b""
    if waiting:
        yield waiting


async def base64_chunks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the base64 text of all chunks together, padded at its end only."""
    carry = b""
    async for chunk in chunks:
        data = carry + chunk if carry else chunk
        whole = len(data) - len(data) % 3
        carry = data[whole:]
        if whole:
            yield pybase64.b64encode(data[:whole] if carry else data)
    if carry:
        yield pybase64.b64encode(carry)


def base64_length(size: int) -> int:
    """Characters of the base64 of `size` bytes."""
    return (size + 2) // 3 * 4


def _describe_sizes(promise: Promise, images: Sequence[TaskImage]) -> str:
    """Return `REQUESTED->MADE` with the sizes made, each once; after a scaled one come `->` and its new size."""
    made = dict.fromkeys(f"{one.made}->{one.size}" if one.made else one.size for one in images)
    return f"{promise.size}->{','.join(made) or 'none'}"


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    counts: dict[str, Any] = {name: usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")}
    # Counts that are not known are left out: a zero would pass for a count.
    text, image = usage["text_tokens"], usage["image_tokens"]
    if text is not None and image is not None:
        counts["input_tokens_details"] = {"text_tokens": text, "image_tokens": image}
    return counts


def _name_list(names: Sequence[str]) -> str:
    """Return the first MOST_NAMED names, then the number of the others as in `+8`: SDKs limit a header's length."""
    shown = names[:MOST_NAMED]
    more = [f"+{len(names) - len(shown)}"] if len(names) > len(shown) else []
    return ",".join([*(_header_safe(name) for name in shown), *more])


def _header_safe(name: str) -> str:
    """Return a caller's field name as a header may hold it: at most 60 characters, with `?` for each unsafe one."""
    return "".join(char if char.isascii() and (char.isalnum() or char in "_.-[]") else "?" for char in name)[:60]
