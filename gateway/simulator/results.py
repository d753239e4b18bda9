"""apiany's documents of a task and its result, in all the shapes that it uses."""

import time
from dataclasses import replace

from gateway.simulator import faults
from gateway.simulator.answers import Blob, vendor_error
from gateway.simulator.config import StatusWords
from gateway.simulator.exchange import Exchange
from gateway.simulator.files import base_url
from gateway.simulator.order import POLICY_WORD, Order, compose, latency_of
from gateway.simulator.picture import Picture
from gateway.simulator.rules import StruckFaults
from gateway.simulator.state import SimulatorState
from gateway.simulator.tasks import State, Task


def begin_task(exchange: Exchange, order: Order, struck: StruckFaults) -> Task:
    """A task for a booked order. The prompt and the faults determine its ending."""
    assert exchange.purchase is not None, "a task begins after its order was booked"
    shape = struck.get(faults.Shape)
    task = Task(
        key=exchange.known_key.name,
        purchase=exchange.purchase,
        latency=latency_of(exchange, struck),
        ending="done",
        words=_words(exchange.state.config.words, struck.get(faults.StatusWords)),
        pictures=compose(exchange, order, struck),
        base_url=base_url(exchange),
        no_image=struck.get(faults.NoImage),
    )
    if shape:
        task.shape = shape.shape
    _settle_ending(task, order, struck)
    exchange.purchase.task_id = task.id
    exchange.state.tasks.add(task)
    return task


def _settle_ending(task: Task, order: Order, struck: StruckFaults) -> None:
    failed, expired = struck.get(faults.TaskFailed), struck.get(faults.TaskExpired)
    policy = struck.get(faults.Policy)
    if struck.get(faults.TaskNever):
        task.ending = None
    elif failed:
        task.ending, task.is_refunded = "failed", failed.refunded
        task.error = vendor_error("apiany", failed.message, failed.type, failed.code)
    elif expired:
        task.ending, task.is_refunded = "expired", expired.refunded
        task.error = vendor_error("apiany", "The task expired.", "task_error", "expired")
    elif policy or POLICY_WORD in order.prompt:
        task.ending, task.is_refunded = "failed", True
        code = (policy and policy.code) or "content_policy"
        message = "The prompt was refused by the content policy."
        task.error = vendor_error("apiany", message, "content_policy_error", code)


def _words(words: StatusWords, fault: faults.StatusWords | None) -> StatusWords:
    if fault is None:
        return words
    told = fault.model_dump(exclude={"kind"}, exclude_none=True)
    return replace(words, **told)


def show_submission(exchange: Exchange, task: Task, struck: StruckFaults) -> dict[str, object]:
    """The answer to a submission: the task."""
    shown: dict[str, object] = {
        "task_id": task.id,
        "status": task.words.pending,
        "poll_url": f"/v1/tasks/{task.id}",
        "request_id": f"req_{exchange.seen.id:08d}",
        "credits": {"reserved": exchange.state.credits_of(task.purchase.price_usd)},
    }
    if struck.get(faults.NoPollUrl):
        del shown["poll_url"]
    return shown


async def show_task(state: SimulatorState, task: Task, task_state: State) -> dict[str, object]:
    """The task's document for a poll or a callback. Its state is read once, because it may change meanwhile."""
    price = state.credits_of(task.purchase.price_usd)
    shown: dict[str, object] = {
        "task_id": task.id,
        "status": task.word(task_state),
        "model": task.purchase.model,
        "created_at": int(task.created),
    }
    if task_state in ("pending", "running"):
        return shown | {"credits": {"reserved": price}}
    shown["completed_at"] = int(task.created + task.latency)
    if task_state == "done":
        return shown | {"credits": {"charged": price}} | await _show_result(state, task)
    state.refund_ended_tasks()
    return shown | {
        "credits": {"charged": 0 if task.is_refunded else price},
        "error": task.error,
    }


async def _show_result(state: SimulatorState, task: Task) -> dict[str, object]:
    if task.no_image is not None:
        return {"result": {"created": int(time.time())} | _no_data(task.no_image, len(task.pictures))}
    if task.shape in ("b64_json", "result.data.b64_json"):
        return {"result": await show_images(state, task.base_url, task.pictures, "b64_json", None)}
    if not task.urls:
        task.urls = [_link(state, task.base_url, picture) for picture in task.pictures]
    items = [{"url": url} for url in task.urls]
    shapes: dict[str, dict[str, object]] = {
        "result.urls": {"result": {"urls": task.urls}},
        "result.images.url": {"result": {"images": items}},
        "result.images.url_list": {"result": {"images": [{"url": [url]} for url in task.urls]}},
        "results": {"results": task.urls},
        "results.url": {"results": items},
        "data": {"data": items},
    }
    return shapes.get(task.shape, {"result": {"created": int(time.time()), "data": items}})


async def show_images(
    state: SimulatorState, base: str, pictures: list[Picture], form: str, no_image: faults.NoImage | None
) -> dict[str, object]:
    """An answer with links, or with the pictures themselves."""
    shown: dict[str, object] = {"created": int(time.time())}
    if no_image is not None:
        return shown | _no_data(no_image, len(pictures))
    items: list[dict[str, object]] = []
    for picture in pictures:
        if form == "b64_json":
            items.append({"b64_json": Blob((await state.drawer.draw(picture)).base64)})
        else:
            items.append({"url": _link(state, base, picture)})
    return shown | {"data": items}


def _link(state: SimulatorState, base: str, picture: Picture) -> str:
    return state.links.add_picture(base, picture, state.config.link_lifetime)


def _no_data(fault: faults.NoImage, n: int) -> dict[str, object]:
    data: dict[str, object] = {"empty": [], "items": [{} for _ in range(n)], "null": None}
    return {"data": data[fault.data]} if fault.data in data else {}
