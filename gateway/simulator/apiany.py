"""The simulated apiany: asynchronous tasks, uploads, a synchronous edit, a balance.

It reads requests strictly and snaps every size to one of seven. `results` writes the tasks.
"""

from urllib.parse import urlsplit

from starlette.routing import Route

from gateway.simulator import faults
from gateway.simulator.answers import Answer, Refusal, answer_json
from gateway.simulator.callbacks import call_back
from gateway.simulator.exchange import Exchange, Handler, VendorEndpoint
from gateway.simulator.fields import (
    Fields,
    read_choice,
    read_form,
    read_json,
    read_prompt,
    read_text,
    read_whole,
    refuse_query,
    refuse_undocumented,
)
from gateway.simulator.files import base_url, serve_file, show_unknown
from gateway.simulator.keys import GPT_IMAGE_2
from gateway.simulator.order import POLICY_WORD, Order, apply_faults, book, compose, latency_of, wait
from gateway.simulator.pricing import tier_price
from gateway.simulator.results import begin_task, show_images, show_submission, show_task
from gateway.simulator.rules import StruckFaults
from gateway.simulator.sizes import RATIOS, RESOLUTIONS, Size, parse_size, ratio_size, shape_size, snap
from gateway.simulator.state import SimulatorState
from gateway.simulator.uploads import Upload

_GENERATION = frozenset({"model", "prompt", "size", "resolution", "quality", "n", "callback_url", "input_images"})
_EDIT = frozenset({"model", "prompt", "size"})
_MOST_INPUTS = 16
_PICTURES = ("png", "jpeg", "webp")
_EDGES = range(64, 8193)


def routes(state: SimulatorState) -> list[Route]:
    """Every path below `/apiany`."""

    def endpoint(name: str, handler: Handler) -> VendorEndpoint:
        return VendorEndpoint(state, "apiany", name, handler)

    return [
        Route("/apiany/v1/images/generations", endpoint("generations", _generate), methods=["POST"]),
        Route("/apiany/v1/images/edits", endpoint("edits", _edit), methods=["POST"]),
        Route("/apiany/v1/images/upload", endpoint("upload", _upload), methods=["POST"]),
        Route("/apiany/v1/tasks/{task_id}", endpoint("tasks", _read_task), methods=["GET"]),
        Route("/apiany/v1/credits/balance", endpoint("balance", _read_balance), methods=["GET"]),
        Route("/apiany/v1/models", endpoint("models", _list_models), methods=["GET"]),
        Route("/apiany/files/{name}", endpoint("files", serve_file), methods=["GET"]),
        Route("/apiany/{rest:path}", endpoint("unknown", show_unknown)),
    ]


async def _list_models(exchange: Exchange) -> Answer:
    refuse_query(exchange)
    await exchange.meet("before")
    prices = exchange.state.config.prices
    pricing = {
        "unit": "image",
        "credits": {
            resolution: int(price * prices.credits_per_usd) for resolution, price in prices.apiany_image.items()
        },
    }
    model = {"id": GPT_IMAGE_2, "object": "model", "owned_by": "apiany", "pricing": pricing}
    await exchange.meet("after")
    return answer_json({"object": "list", "data": [model]})


async def _read_balance(exchange: Exchange) -> Answer:
    refuse_query(exchange)
    await exchange.meet("before")
    answer = answer_json({"credits": exchange.state.balance, "currency": "credits"})
    await exchange.meet("after")
    return answer


async def _read_task(exchange: Exchange) -> Answer:
    refuse_query(exchange)
    task = exchange.state.tasks.find(exchange.request.path_params["task_id"])
    if task is None or task.key != exchange.known_key.name:
        raise Refusal(404, "not_found", "There is no such task.")
    exchange.set_model(task.purchase.model)
    exchange.purchase = task.purchase
    await exchange.meet("before")
    task_state = task.state()
    answer = answer_json(await show_task(exchange.state, task, task_state))
    if task_state == "done" and task.no_image is None:
        exchange.count_delivered(len(task.pictures))
    await exchange.meet("after")
    return answer


async def _upload(exchange: Exchange) -> Answer:
    fields = await read_form(exchange, keeps_files=True)
    refuse_undocumented(fields, (), {"file"})
    if len(fields.files) != 1:
        raise _refuse_file("file", "exactly one is required")
    upload = fields.files[0]
    _require_picture(upload)
    await exchange.meet("before")
    state = exchange.state
    url = await state.links.add_upload(base_url(exchange), upload, state.config.link_lifetime)
    await exchange.meet("after")
    return answer_json({"url": url})


async def _generate(exchange: Exchange) -> Answer:
    fields = await read_json(exchange)
    _read_model(exchange, fields)
    refuse_undocumented(fields, _GENERATION)
    callback = _read_callback(fields)
    inputs = _read_inputs(exchange, fields)
    size_asked, size = _read_size(fields, inputs)
    order = Order(
        model=GPT_IMAGE_2,
        operation="generations",
        prompt=read_prompt(fields),
        n=read_whole(fields, "n", 1, 10) or 1,
        size_asked=size_asked,
        size=size,
        quality=read_choice(fields, "quality", ("low", "medium", "high"), "medium"),
        inputs=inputs,
    )
    order, struck = await _accept(exchange, order)
    task = begin_task(exchange, order, struck)
    if callback is not None:
        await call_back(exchange.state, task, callback, struck)
    await exchange.meet("after")
    early = struck.get(faults.TaskAnswer)
    return answer_json(show_submission(exchange, task, struck), status=early.status if early else 202)


async def _edit(exchange: Exchange) -> Answer:
    fields = await read_form(exchange)
    _read_model(exchange, fields)
    refuse_undocumented(fields, _EDIT, {"image", "mask"})
    image, mask = _read_edit_files(fields)
    size_asked, size = _read_size(fields, [image])
    order = Order(
        model=GPT_IMAGE_2,
        operation="edits",
        prompt=read_prompt(fields),
        n=1,
        size_asked=size_asked,
        size=size,
        quality="medium",
        inputs=[image],
        mask=mask,
    )
    return await _fulfil_edit(exchange, order)


async def _fulfil_edit(exchange: Exchange, order: Order) -> Answer:
    order, struck = await _accept(exchange, order)
    answers_task = struck.get(faults.TaskAnswer)
    if answers_task:
        task = begin_task(exchange, order, struck)
        await exchange.meet("after")
        return answer_json(show_submission(exchange, task, struck), status=answers_task.status)
    await exchange.meet("after")
    await wait(latency_of(exchange, struck))
    pictures = compose(exchange, order, struck)
    shape = struck.get(faults.Shape)
    form = "b64_json" if shape and "b64" in shape.shape else "url"
    value = await show_images(exchange.state, base_url(exchange), pictures, form, struck.get(faults.NoImage))
    exchange.count_delivered(0 if struck.get(faults.NoImage) else len(pictures))
    return answer_json(value)


async def _accept(exchange: Exchange, order: Order) -> tuple[Order, StruckFaults]:
    """Refuse an order for policy or for missing credits, or book it."""
    await exchange.meet("before")
    struck = exchange.take("work")
    policy = struck.get(faults.Policy)
    is_edit = order.operation == "edits" and not struck.get(faults.TaskAnswer)
    if (policy and policy.at_submission) or (is_edit and (policy or POLICY_WORD in order.prompt)):
        raise _refuse_policy(policy)
    order = apply_faults(order, struck)
    state = exchange.state
    price = tier_price(state.config.prices, order.size, order.n)
    if state.credits_of(price) > state.balance:
        raise Refusal(402, "insufficient_credits", "Not enough credits.", kind="insufficient_quota")
    book(exchange, order, price)
    return order, struck


def _refuse_policy(policy: faults.Policy | None) -> Refusal:
    code = (policy and policy.code) or "content_policy"
    return Refusal(400, code, "The prompt was refused by the content policy.", kind="content_policy_error")


def _read_model(exchange: Exchange, fields: Fields) -> None:
    model = read_text(fields, "model")
    exchange.set_model(model)
    if model != GPT_IMAGE_2:
        message = f"The model {model} does not exist."
        raise Refusal(404, "model_not_found", message, param="model", refused=("model",))


def _read_size(fields: Fields, inputs: list[Upload]) -> tuple[str, Size]:
    """The requested size in the request's own words, and the size that the simulator makes."""
    asked = fields.values.get("size", "auto")
    resolution = read_choice(fields, "resolution", RESOLUTIONS, "1K")
    if not isinstance(asked, str):
        raise _refuse_size(asked)
    if asked in RATIOS:
        return asked, snap(ratio_size(asked, resolution))
    if asked == "auto":
        first = next((upload.size for upload in inputs if upload.size), (1, 1))
        return asked, shape_size(first)
    size = parse_size(asked)
    if size is None or size[0] not in _EDGES or size[1] not in _EDGES:
        raise _refuse_size(asked)
    return asked, snap(size)


def _refuse_size(value: object) -> Refusal:
    message = f"size: {value!r} is neither auto, nor a documented ratio, nor WxH"
    return Refusal(400, "invalid_value", message, param="size", refused=("size",))


def _read_callback(fields: Fields) -> str | None:
    if "callback_url" not in fields.values:
        return None
    value = read_text(fields, "callback_url")
    try:
        parts = urlsplit(value)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_web = False
    if not is_web:
        message = "callback_url: not an http or https URL"
        raise Refusal(400, "invalid_value", message, param="callback_url", refused=("callback_url",))
    return value


def _read_inputs(exchange: Exchange, fields: Fields) -> list[Upload]:
    if "input_images" not in fields.values:
        return []
    urls = fields.values["input_images"]
    if not isinstance(urls, list) or not 1 <= len(urls) <= _MOST_INPUTS:
        raise _refuse_inputs(f"a list of 1 to {_MOST_INPUTS} URLs is expected")
    inputs: list[Upload] = []
    for url in urls:
        upload = exchange.state.links.find_upload(url) if isinstance(url, str) else None
        if upload is None:
            raise _refuse_inputs(f"{url!r} was not uploaded here, or not lately")
        inputs.append(upload)
    return inputs


def _refuse_inputs(message: str) -> Refusal:
    return Refusal(400, "invalid_value", f"input_images: {message}", param="input_images", refused=("input_images",))


def _refuse_file(name: str, message: str) -> Refusal:
    return Refusal(400, "invalid_image", f"{name}: {message}", param=name, refused=(name,))


def _require_picture(upload: Upload) -> None:
    if upload.format not in _PICTURES:
        raise _refuse_file(upload.field, f"the bytes are {upload.format or 'no picture'}")


def _read_edit_files(fields: Fields) -> tuple[Upload, Upload | None]:
    images, masks = fields.files_named("image"), fields.files_named("mask")
    if len(images) != 1:
        raise _refuse_file("image", "exactly one is required")
    if len(masks) > 1:
        raise _refuse_file("mask", "one at most")
    for upload in images + masks:
        _require_picture(upload)
    if masks and masks[0].size != images[0].size:
        raise _refuse_file("mask", "it must have the dimensions of the image")
    if masks and not masks[0].has_alpha:
        raise _refuse_file("mask", "it has no alpha channel")
    return images[0], masks[0] if masks else None
