"""Serves the files of links, and answers undocumented paths."""

import asyncio

from gateway.simulator.answers import Answer, Refusal
from gateway.simulator.exchange import Exchange
from gateway.simulator.picture import MEDIA_TYPES


def base_url(exchange: Exchange) -> str:
    """The start of this vendor's links, by the request's Host."""
    return f"{str(exchange.request.base_url).rstrip('/')}/{exchange.upstream}/files"


async def serve_file(exchange: Exchange) -> Answer:
    """A picture or an uploaded file; it needs no key."""
    link = exchange.state.links.find(exchange.request.path_params["name"])
    if link is None or f"/{exchange.upstream}/files/" not in link.url:
        raise Refusal(404, "not_found", "There is no such file.")
    if link.is_expired:
        raise Refusal(410, "link_expired", "This link has expired.")
    await exchange.meet("before")
    if link.picture is not None:
        drawn = await exchange.state.drawer.draw(link.picture)
        answer = Answer(200, [drawn.data], media_type=MEDIA_TYPES[link.picture.format])
    else:
        assert link.path is not None
        assert link.upload is not None
        data = await asyncio.to_thread(link.path.read_bytes)
        answer = Answer(200, [data], media_type=MEDIA_TYPES[link.upload.format or "png"])
    await exchange.meet("after")
    return answer


async def show_unknown(exchange: Exchange) -> Answer:
    """An undocumented path or method."""
    request = exchange.request
    message = f"Invalid URL ({request.method} {request.url.path})"
    raise Refusal(404, "not_found", message, undocumented=(f"{request.method} {request.url.path}",))
