"""Methods and paths that are not written as the routes are: HEAD, and other spellings of callers' paths.

Clients put a base URL and a path together in more ways than one. An answer is never a redirect: many clients would send
a POST again as a GET. An operator's path has one spelling only. A proxy in front may refuse that path by its bytes, and
another spelling would pass the proxy.
"""

from __future__ import annotations

import re

from starlette.types import Message, Scope, Send

from gateway import errors

OPERATOR_PREFIXES = ("/admin", "/console", "/metrics", "/mcp")
"""Paths at and below these are served under their own bytes only."""

BASES = (
    "/v1",
    # A base URL without /v1, with and without a slash at its end.
    "",
    "/",
    # A base URL with a slash at its end.
    "//v1",
    "/v1/",
    "//v1/",
    # A base URL with /v1, for a client that adds /v1 itself.
    "/v1/v1",
    "/v1//v1",
    # A whole endpoint as the base URL, also for a client that adds /v1 itself.
    "/v1/images",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/images/v1",
    "/v1/images/generations/v1",
    "/v1/images/edits/v1",
    "/v1/chat/completions/v1",
    "/v1/responses/v1",
)
"""The texts that a caller's path may have in place of `/v1`."""

_ROUTE = re.compile(
    "(?:" + "|".join(re.escape(base) for base in sorted(BASES, key=len, reverse=True)) + ")/"
    r"(images/(?:generations|edits|variations)|chat/completions|responses"
    r"|models(?:/.+)?|tasks(?:/[^/]+)?|key|artifacts/[^/]+)",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NEEDLESS = re.compile(rb"%(2[dD]|2[eE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")
"""Percent-escapes of letters, digits and `-._~`, which no client needs (RFC 3986 2.3)."""


def read_route(scope: Scope) -> Scope:
    """Return the scope as the routes are written: a caller's path in its usual spelling, and GET in place of HEAD.

    Raises UnknownRoute for an operator's path whose bytes do not begin with its own prefix, or escape a letter, a digit
    or one of `-._~`. Raises InvalidValue for an operator's path with a control character: a route would match no part
    behind a line feed.
    """
    path: str = scope["path"]
    if any(path == prefix or path.startswith(f"{prefix}/") for prefix in OPERATOR_PREFIXES):
        raw: bytes = scope["raw_path"]
        if not any(raw == prefix.encode() or raw.startswith(f"{prefix}/".encode()) for prefix in OPERATOR_PREFIXES):
            raise errors.UnknownRoute("There is nothing at this URL.")
        if _CONTROL.search(path):
            raise errors.InvalidValue("The URL has an escaped control character, such as %0A; send it without.")
        if _NEEDLESS.search(raw):
            raise errors.UnknownRoute("There is nothing at this URL; write its letters without percent-escapes.")
    elif found := _ROUTE.fullmatch(path.rstrip("/")):
        path = f"/v1/{found[1]}"
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "path": path, "method": method}


def send_head(send: Send) -> Send:
    """Return a `send` for an answer to HEAD. It sends the headers, and an empty body in place of the answer's own."""
    is_ended = False

    async def send_start(message: Message) -> None:
        nonlocal is_ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not is_ended:
            is_ended = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_start
