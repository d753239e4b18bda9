"""Failures of a request, and the answer to "was it sent": what an exception proves about the bytes that left.

It reads no text of an exception: that would quote inner addresses, and bytes of the answer.
"""

from __future__ import annotations

from typing import Literal

import httpx

RequestError = httpx.RequestError
"""The base of every failure of a request."""

Sent = Literal["nothing", "part", "whole"]
"""The part of the request that was passed on to be written: a write that fails does not prove that nothing left."""


def prove_unsent(error: RequestError) -> RequestError:
    """The error with the proof that the upstream never had the whole request.

    Its last byte was never passed to the connection.
    """
    error.__dict__["sent_whole"] = False
    return error


def was_sent(error: BaseException) -> bool:
    """False only with proof that the upstream never had the whole request, and so cannot have billed it.

    The proof is `sent_whole`, which only the transport sets. Every other exception, known or not, counts as sent.
    """
    return getattr(error, "sent_whole", True) is not False


def name_phase(error: RequestError) -> Literal["connect", "write", "read"]:
    """The step in which a request failed. It is `read` if the upstream may have had the whole request."""
    if was_sent(error):
        return "read"
    return "connect" if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else "write"


def describe_error(error: RequestError) -> str:
    """A failed request in the gateway's words. A library's text would quote inner addresses, and answered bytes."""
    if isinstance(error, httpx.TimeoutException):
        return "the connection took too long" if not was_sent(error) else "no answer came in time"
    if isinstance(error, httpx.RemoteProtocolError):
        return "the answer broke off, or was not HTTP"
    return "the connection broke" if was_sent(error) else "the connection failed"


def explain(sent: Sent, cause: BaseException | None, *, is_answered: bool, fault: str = "") -> RequestError:
    """The failure that states the proof: Connect* and Write* were not sent whole, the others may be billed.

    `is_answered` is true from the head of an answer on. `fault` says what of the answer is not HTTP. Without cause and
    fault the peer closed the connection.
    """
    is_late = isinstance(cause, TimeoutError)
    error: RequestError
    if sent == "nothing":
        text = "the connection ended before anything was written"
        error = prove_unsent((httpx.ConnectTimeout if is_late else httpx.ConnectError)(text))
    elif sent == "part" and not is_answered:
        text = "the connection failed before the whole request was written"
        error = prove_unsent((httpx.WriteTimeout if is_late else httpx.WriteError)(text))
    elif fault:
        error = httpx.RemoteProtocolError(fault)
    elif is_late:
        error = httpx.ReadTimeout("no bytes of the answer came in time")
    elif cause is None and not is_answered:
        error = httpx.RemoteProtocolError("the connection ended without an answer")
    else:
        error = httpx.ReadError("the connection broke")
    error.__cause__ = cause
    return error
