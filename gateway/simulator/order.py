"""An order that any vendor could take: the effect of faults on it, its pictures, its entry in the book.

The vendors' modules read requests into an `Order`, and write the pictures into their own answers.
"""

import asyncio
from dataclasses import dataclass, field, replace
from decimal import Decimal

from gateway.simulator import faults
from gateway.simulator.exchange import Exchange
from gateway.simulator.journal import Purchase
from gateway.simulator.picture import Picture
from gateway.simulator.rules import StruckFaults
from gateway.simulator.sizes import Size, parse_size, show_size
from gateway.simulator.uploads import Upload

POLICY_WORD = "forbidden-content"


@dataclass(frozen=True)
class Order:
    """The order of a request. `size` is the size to make, `size_asked` the size in the request."""

    model: str
    operation: str
    prompt: str
    n: int
    size_asked: str
    size: Size
    quality: str
    format: str = "png"
    compression: int | None = None
    response_format: str = "b64_json"
    inputs: list[Upload] = field(default_factory=list)
    mask: Upload | None = None
    is_transparent: bool = False

    @property
    def input_sizes(self) -> list[Size]:
        return [upload.size for upload in self.inputs if upload.size is not None]


def apply_faults(order: Order, struck: StruckFaults) -> Order:
    """The order with the changes of the faults."""
    fewer, size = struck.get(faults.Fewer), struck.get(faults.WrongSize)
    kind = struck.get(faults.WrongFormat)
    if fewer:
        order = replace(order, n=max(0, order.n - fewer.by))
    if size:
        made = parse_size(size.size)
        assert made is not None, "the fault's pattern allows sizes only"
        order = replace(order, size=made)
    if kind:
        order = replace(order, format=kind.format)
    return order


def compose(exchange: Exchange, order: Order, struck: StruckFaults) -> list[Picture]:
    """The pictures of an order, before they are drawn."""
    pad = struck.get(faults.Pad)
    asked = "" if order.size_asked == show_size(order.size) else f" (asked {order.size_asked})"
    captions = (
        f"{exchange.upstream} · {order.model} · {order.operation}",
        f"{show_size(order.size)}{asked} · {order.quality} · {order.format}",
    )
    inputs = tuple(upload.thumbnail for upload in order.inputs if upload.thumbnail is not None)
    return [
        Picture(
            size=order.size,
            format=order.format,
            prompt=order.prompt,
            captions=(*captions, f"{index + 1} of {order.n} · simulated"),
            index=index,
            compression=order.compression,
            inputs=inputs,
            mask=None if order.mask is None else order.mask.alpha,
            is_broken=struck.get(faults.BrokenImage) is not None,
            pad=pad.bytes if pad else exchange.state.config.pad_bytes,
            is_transparent=order.is_transparent,
        )
        for index in range(order.n)
    ]


def book(exchange: Exchange, order: Order, price: Decimal) -> Purchase:
    """Accept an order: write it into the book."""
    purchase = Purchase(
        id=exchange.state.book.next_id(),
        upstream=exchange.upstream,
        model=order.model,
        operation=order.operation,
        n=order.n,
        prompt=order.prompt,
        size_asked=order.size_asked,
        size_made=show_size(order.size),
        quality=order.quality,
        price_usd=price,
        key=exchange.known_key.name,
        references=len(order.inputs),
        mask=order.mask is not None,
    )
    exchange.accept(purchase)
    return purchase


def latency_of(exchange: Exchange, struck: StruckFaults) -> float:
    """The seconds that the pictures take."""
    latency = struck.get(faults.Latency)
    return latency.seconds if latency else exchange.state.config.latency


async def wait(seconds: float) -> None:
    """Wait as long as a vendor takes, with a timer alone."""
    await asyncio.sleep(seconds)
