"""Serves an order for a vendor without tasks: policy, the book, the wait, and the pictures in the answer itself."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from gateway.simulator import faults
from gateway.simulator.answers import Answer, Blob, Refusal, answer_json
from gateway.simulator.exchange import Exchange
from gateway.simulator.files import base_url
from gateway.simulator.order import POLICY_WORD, Order, apply_faults, book, compose, latency_of, wait
from gateway.simulator.picture import MEDIA_TYPES, Drawn, Picture
from gateway.simulator.rules import StruckFaults
from gateway.simulator.sizes import show_size

_FORMS = ("url", "data_url", "b64_data_url", "b64_json")


@dataclass(frozen=True)
class SynchronousVendor:
    """The differences between vendors. `describe` returns the answer's fields beside `created` and the pictures."""

    policy_code: str
    price: Callable[[Exchange, Order], Decimal]
    describe: Callable[[Order], dict[str, object]]
    revises_prompt: bool


async def fulfil(exchange: Exchange, order: Order, vendor: SynchronousVendor) -> Answer:
    """Accept an order and answer it."""
    await exchange.meet("before")
    struck = exchange.take("work")
    policy = struck.get(faults.Policy)
    if policy or POLICY_WORD in order.prompt:
        code = (policy and policy.code) or vendor.policy_code
        message = "Your request was rejected as a result of our safety system."
        raise Refusal(400, code, message, kind="image_generation_user_error")
    order = apply_faults(order, struck)
    book(exchange, order, vendor.price(exchange, order))
    await exchange.meet("after")
    await wait(latency_of(exchange, struck))
    return await _answer(exchange, order, struck, vendor)


async def _answer(exchange: Exchange, order: Order, struck: StruckFaults, vendor: SynchronousVendor) -> Answer:
    shape_fault = struck.get(faults.Shape)
    shape = shape_fault.shape if shape_fault else order.response_format
    pictures = compose(exchange, order, struck)
    body: dict[str, object] = {"created": int(time.time())}
    no_image = struck.get(faults.NoImage)
    if no_image:
        body |= _no_data(no_image, order.n)
        images = 0
    else:
        form = shape if shape in _FORMS else order.response_format
        body["data"] = [await _item(exchange, picture, form, vendor) for picture in pictures]
        images = order.n
    body |= vendor.describe(order)
    if shape == "no_created":
        del body["created"]
    if shape == "no_usage":
        body.pop("usage", None)
    if shape == "with_size":
        body |= {"size": show_size(order.size), "quality": order.quality, "output_format": order.format}
    exchange.count_delivered(images)
    return answer_json(body)


def _no_data(fault: faults.NoImage, n: int) -> dict[str, object]:
    data: dict[str, object] = {"empty": [], "items": [{"revised_prompt": ""} for _ in range(n)], "null": None}
    return {"data": data[fault.data]} if fault.data in data else {}


async def _item(exchange: Exchange, picture: Picture, form: str, vendor: SynchronousVendor) -> dict[str, object]:
    rest: dict[str, object] = {"revised_prompt": picture.prompt} if vendor.revises_prompt else {}
    if form == "url":
        links = exchange.state.links
        lifetime = exchange.state.config.link_lifetime
        return {"url": links.add_picture(base_url(exchange), picture, lifetime), **rest}
    drawn: Drawn = await exchange.state.drawer.draw(picture)
    prefix = f"data:{MEDIA_TYPES[picture.format]};base64,".encode()
    if form == "data_url":
        return {"url": Blob(drawn.base64, prefix), **rest}
    return {"b64_json": Blob(drawn.base64, prefix if form == "b64_data_url" else b""), **rest}
