"""The simulated OpenAI: its GPT image models, as its published specification has them.

It reads requests strictly, does not stream, and takes edits as forms only.
"""

from decimal import Decimal

from starlette.routing import Route

from gateway.simulator.answers import Answer, Refusal, answer_json
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
from gateway.simulator.files import serve_file, show_unknown
from gateway.simulator.keys import GPT_IMAGE_2
from gateway.simulator.order import Order
from gateway.simulator.pricing import token_price, usage
from gateway.simulator.sizes import SNAPPED, Size, broken_rule, parse_size, shape_size, show_size
from gateway.simulator.state import SimulatorState
from gateway.simulator.synchronous import SynchronousVendor, fulfil
from gateway.simulator.uploads import Upload

_EITHER = frozenset(
    {"model", "prompt", "n", "size", "quality", "background", "output_format", "output_compression", "user"}
)
_GENERATION = _EITHER | {"moderation"}
_EDIT = _EITHER | {"input_fidelity"}
_FILES = frozenset({"image", "image[]", "mask"})
_STANDARD = SNAPPED[:3]
_MOST_IMAGES = 16
_LARGEST_IMAGE = 50_000_000
_LARGEST_MASK = 4_000_000


def routes(state: SimulatorState) -> list[Route]:
    """Every path below `/openai`."""

    def endpoint(name: str, handler: Handler) -> VendorEndpoint:
        return VendorEndpoint(state, "openai", name, handler)

    return [
        Route("/openai/v1/images/generations", endpoint("generations", _generate), methods=["POST"]),
        Route("/openai/v1/images/edits", endpoint("edits", _edit), methods=["POST"]),
        Route("/openai/v1/models", endpoint("models", _list_models), methods=["GET"]),
        Route("/openai/files/{name}", endpoint("files", serve_file), methods=["GET"]),
        Route("/openai/{rest:path}", endpoint("unknown", show_unknown)),
    ]


async def _list_models(exchange: Exchange) -> Answer:
    refuse_query(exchange)
    await exchange.meet("before")
    models = [
        {"id": model, "object": "model", "created": 1_776_000_000, "owned_by": "system"}
        for model in sorted(exchange.known_key.models)
    ]
    await exchange.meet("after")
    return answer_json({"object": "list", "data": models})


async def _generate(exchange: Exchange) -> Answer:
    fields = await read_json(exchange)
    model = _read_model(exchange, fields)
    refuse_undocumented(fields, _GENERATION)
    read_choice(fields, "moderation", ("auto", "low"), "auto")
    return await _fulfil(exchange, fields, model, [], None)


async def _edit(exchange: Exchange) -> Answer:
    fields = await read_form(exchange)
    model = _read_model(exchange, fields)
    refuse_undocumented(fields, _EDIT, _FILES)
    read_choice(fields, "input_fidelity", ("high", "low"), "low")
    images = _read_images(fields)
    return await _fulfil(exchange, fields, model, images, _read_mask(fields, images[0]))


def _read_model(exchange: Exchange, fields: Fields) -> str:
    model = read_text(fields, "model")
    exchange.set_model(model)
    if not exchange.known_key.knows(model):
        message = f"The model '{model}' does not exist."
        raise Refusal(404, "model_not_found", message, param="model", refused=("model",))
    return model


def _read_size(fields: Fields, model: str, images: list[Upload]) -> tuple[str, Size]:
    """The requested size, and the size that the simulator makes."""
    # The specification's own defaults: `auto` for generations, a square for edits.
    value = fields.values.get("size", "1024x1024" if images else "auto")
    if value == "auto":
        like = images[0].size if images else None
        return "auto", shape_size(like or (1, 1))
    size = parse_size(value) if isinstance(value, str) else None
    broken = "it is neither auto nor WIDTHxHEIGHT" if size is None else broken_rule(size)
    if size is not None and not model.startswith(GPT_IMAGE_2) and size not in _STANDARD:
        broken = f"{model} makes {', '.join(map(show_size, _STANDARD))}"
    if size is None or broken is not None:
        raise Refusal(400, "invalid_value", f"size: {value!r}: {broken}", param="size", refused=("size",))
    return show_size(size), size


def _refuse_file(name: str, message: str) -> Refusal:
    return Refusal(400, "invalid_image_file", f"{name}: {message}", param=name, refused=(name,))


def _read_images(fields: Fields) -> list[Upload]:
    single, several = fields.files_named("image"), fields.files_named("image[]")
    if bool(single) == bool(several):
        raise _refuse_file("image", "either image or image[] is required")
    if len(single) > 1 or len(several) > _MOST_IMAGES:
        raise _refuse_file("image", f"image takes one file, image[] up to {_MOST_IMAGES}")
    for upload in single + several:
        if upload.format not in ("png", "jpeg", "webp"):
            raise _refuse_file(upload.field, f"the bytes are {upload.format or 'no picture'}, not PNG, JPEG or WebP")
        if upload.length >= _LARGEST_IMAGE:
            raise _refuse_file(upload.field, "it must be smaller than 50 MB")
    return single + several


def _read_mask(fields: Fields, first: Upload) -> Upload | None:
    masks = fields.files_named("mask")
    if not masks:
        return None
    mask = masks[0]
    if len(masks) > 1:
        raise _refuse_file("mask", "one file only")
    if mask.format != "png" or mask.length >= _LARGEST_MASK:
        raise _refuse_file("mask", "it must be a PNG, smaller than 4 MB")
    if mask.size != first.size:
        raise _refuse_file("mask", "it must have the dimensions of the image")
    if not mask.has_alpha:
        raise _refuse_file("mask", "it has no alpha channel")
    return mask


def _read_format(fields: Fields) -> tuple[str, int | None, bool]:
    """Format, compression, and whether the background is transparent."""
    output_format = read_choice(fields, "output_format", ("png", "jpeg", "webp"), "png")
    compression = read_whole(fields, "output_compression", 0, 100)
    if compression not in (None, 100) and output_format == "png":
        message = "output_compression: only jpeg and webp are compressed"
        raise Refusal(400, "invalid_value", message, param="output_compression", refused=("output_compression",))
    is_transparent = read_choice(fields, "background", ("transparent", "opaque", "auto"), "auto") == "transparent"
    if is_transparent and output_format == "jpeg":
        message = "background: transparent needs output_format png or webp"
        raise Refusal(400, "invalid_value", message, param="background", refused=("background",))
    return output_format, compression, is_transparent


def _price(exchange: Exchange, order: Order) -> Decimal:
    prices = exchange.state.config.prices
    return token_price(prices, order.prompt, order.input_sizes, order.size, order.quality, order.n)


def _describe(order: Order) -> dict[str, object]:
    return {
        "background": "transparent" if order.is_transparent else "opaque",
        "output_format": order.format,
        "quality": order.quality,
        "size": show_size(order.size),
        "usage": usage(order.prompt, order.input_sizes, order.size, order.quality, order.n),
    }


async def _fulfil(exchange: Exchange, fields: Fields, model: str, images: list[Upload], mask: Upload | None) -> Answer:
    size_asked, size = _read_size(fields, model, images)
    output_format, compression, is_transparent = _read_format(fields)
    quality = read_choice(fields, "quality", ("low", "medium", "high", "auto"), "auto")
    if "user" in fields.values:
        read_text(fields, "user")
    order = Order(
        model=model,
        operation="edits" if images else "generations",
        prompt=read_prompt(fields),
        n=read_whole(fields, "n", 1, 10) or 1,
        size_asked=size_asked,
        size=size,
        # "The best quality for the given model."
        quality="high" if quality == "auto" else quality,
        format=output_format,
        compression=compression,
        inputs=images,
        mask=mask,
        is_transparent=is_transparent,
    )
    return await fulfil(
        exchange, order, SynchronousVendor("moderation_blocked", _price, _describe, revises_prompt=False)
    )
