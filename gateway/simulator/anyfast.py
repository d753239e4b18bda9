"""The simulated Anyfast: gpt-image-2 and gpt-image-2-c, synchronous, as their pages document them.

It reads requests strictly. Where two pages disagree, it follows the stricter one.
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
from gateway.simulator.keys import GPT_IMAGE_2, GPT_IMAGE_2_C
from gateway.simulator.order import Order
from gateway.simulator.pricing import token_price, usage
from gateway.simulator.sizes import Size, broken_rule, parse_size, show_size
from gateway.simulator.state import SimulatorState
from gateway.simulator.synchronous import SynchronousVendor, fulfil
from gateway.simulator.uploads import Upload

_DEFAULT_SIZE = "1024x1024"
_LARGEST_MASK = 50 * 1024 * 1024
_MOST_IMAGES = 16
_EITHER = frozenset({"model", "prompt", "size", "output_format", "output_compression"})
_GENERATION = {
    GPT_IMAGE_2: _EITHER | {"n", "quality", "moderation"},
    GPT_IMAGE_2_C: _EITHER | {"quality", "moderation", "response_format"},
}
_EDIT = {GPT_IMAGE_2: _EITHER | {"n"}, GPT_IMAGE_2_C: _EITHER | {"response_format"}}
_FILES = frozenset({"image", "image[]", "mask"})


def routes(state: SimulatorState) -> list[Route]:
    """Every path below `/anyfast`."""

    def endpoint(name: str, handler: Handler) -> VendorEndpoint:
        return VendorEndpoint(state, "anyfast", name, handler)

    return [
        Route("/anyfast/v1/images/generations", endpoint("generations", _generate), methods=["POST"]),
        Route("/anyfast/v1/images/edits", endpoint("edits", _edit), methods=["POST"]),
        Route("/anyfast/v1/models", endpoint("models", _list_models), methods=["GET"]),
        Route("/anyfast/files/{name}", endpoint("files", serve_file), methods=["GET"]),
        Route("/anyfast/{rest:path}", endpoint("unknown", show_unknown)),
    ]


async def _list_models(exchange: Exchange) -> Answer:
    refuse_query(exchange)
    await exchange.meet("before")
    models = [
        {"id": model, "object": "model", "created": 1_776_000_000, "owned_by": "anyfast"}
        for model in sorted(exchange.known_key.models)
    ]
    await exchange.meet("after")
    return answer_json({"object": "list", "data": models})


async def _generate(exchange: Exchange) -> Answer:
    fields = await read_json(exchange)
    model = _read_model(exchange, fields)
    refuse_undocumented(fields, _GENERATION[model])
    order = _read_order(exchange, fields, model, "generations")
    read_choice(fields, "moderation", ("auto", "low"), "auto")
    return await _fulfil(exchange, order)


async def _edit(exchange: Exchange) -> Answer:
    fields = await read_form(exchange)
    model = _read_model(exchange, fields)
    refuse_undocumented(fields, _EDIT[model], _FILES)
    return await _fulfil(exchange, _read_order(exchange, fields, model, "edits"))


def _read_model(exchange: Exchange, fields: Fields) -> str:
    model = read_text(fields, "model")
    exchange.set_model(model)
    if model not in _GENERATION:
        message = f"The model {model} does not exist"
        raise Refusal(400, "model_not_found", message, param="model", refused=("model",))
    if model not in exchange.known_key.models:
        message = f"This token has no access to model {model}"
        raise Refusal(403, "access_denied", message, param="model", refused=("model",))
    return model


def _read_order(exchange: Exchange, fields: Fields, model: str, operation: str) -> Order:
    is_edit = operation == "edits"
    prompt = read_prompt(fields)
    n = read_whole(fields, "n", 1, 10) or 1
    if n > 1:
        _require_direct(exchange, "n")
    size = _read_size(fields)
    compression = read_whole(fields, "output_compression", 0, 100)
    output_format = read_choice(fields, "output_format", ("png", "jpeg"), "png")
    if compression is not None and output_format != "jpeg":
        message = "output_compression: only jpeg is compressed"
        raise Refusal(400, "invalid_value", message, refused=("output_compression",))
    links = ("url",) if is_edit else ("url", "b64_json")
    response_format = read_choice(fields, "response_format", links, "url")
    images = _read_images(fields) if is_edit else []
    return Order(
        model=model,
        operation=operation,
        prompt=prompt,
        n=n,
        size_asked=show_size(size),
        size=size,
        quality=read_choice(fields, "quality", ("low", "medium", "high"), "medium"),
        format=output_format,
        compression=compression,
        response_format="b64_json" if model == GPT_IMAGE_2 else response_format,
        inputs=images,
        mask=_read_mask(exchange, fields, images[0]) if is_edit else None,
    )


def _require_direct(exchange: Exchange, name: str) -> None:
    if not exchange.known_key.is_direct:
        message = f"{name} requires selecting the Direct group"
        raise Refusal(403, "direct_group_required", message, param=name, refused=(name,))


def _read_size(fields: Fields) -> Size:
    value = fields.values.get("size", _DEFAULT_SIZE)
    size = parse_size(value) if isinstance(value, str) else None
    broken = "it is not {width}x{height}" if size is None else broken_rule(size)
    if size is None or broken is not None:
        raise Refusal(400, "invalid_value", f"size: {value!r}: {broken}", param="size", refused=("size",))
    return size


def _refuse_file(name: str, message: str) -> Refusal:
    return Refusal(400, "invalid_image", f"{name}: {message}", param=name, refused=(name,))


def _read_images(fields: Fields) -> list[Upload]:
    single, several = fields.files_named("image"), fields.files_named("image[]")
    if single and several:
        raise _refuse_file("image", "use either image or image[], not both")
    if not single and not several:
        raise _refuse_file("image", "at least one image is required")
    if len(single) > 1:
        raise _refuse_file("image", "one file only; image[] takes several")
    if several and not 2 <= len(several) <= _MOST_IMAGES:
        raise _refuse_file("image[]", f"2 to {_MOST_IMAGES} files; image takes a single one")
    for upload in single + several:
        if upload.format not in ("png", "jpeg"):
            raise _refuse_file(upload.field, f"the bytes are {upload.format or 'no picture'}, not PNG or JPEG")
    return single + several


def _read_mask(exchange: Exchange, fields: Fields, first: Upload) -> Upload | None:
    masks = fields.files_named("mask")
    if not masks:
        return None
    _require_direct(exchange, "mask")
    mask = masks[0]
    if len(masks) > 1:
        raise _refuse_file("mask", "one file only")
    if mask.length >= _LARGEST_MASK:
        raise _refuse_file("mask", "it must be smaller than 50 MB")
    if mask.format != first.format:
        raise _refuse_file("mask", f"it is {mask.format or 'no picture'}, the source is {first.format}")
    if mask.size != first.size:
        raise _refuse_file("mask", "it must have the dimensions of the source")
    if not mask.has_alpha:
        raise _refuse_file("mask", "it has no alpha channel")
    return mask


def _price(exchange: Exchange, order: Order) -> Decimal:
    prices = exchange.state.config.prices
    if order.model == GPT_IMAGE_2_C:
        return order.n * prices.anyfast_c_image
    return token_price(prices, order.prompt, order.input_sizes, order.size, order.quality, order.n)


async def _fulfil(exchange: Exchange, order: Order) -> Answer:
    vendor = SynchronousVendor("content_policy_violation", _price, _describe, revises_prompt=True)
    return await fulfil(exchange, order, vendor)


def _describe(order: Order) -> dict[str, object]:
    if order.model == GPT_IMAGE_2_C:
        return {}
    return {"usage": usage(order.prompt, order.input_sizes, order.size, order.quality, order.n)}
