"""`imagegate healthcheck`: asks the gateway of this machine, over HTTP, if it is ready. It opens no store."""

from __future__ import annotations

import http.client
import json
import os
from typing import Any

import typer

from gateway.cli import output
from gateway.process.settings import Settings, load_settings
from gateway.server.listener import address_for_people

EXIT_REFUSED = 1
_HEALTHCHECK_S = 5.0
_MOST_BYTES = 10_000


def _explain_silence(error: Exception, address: str) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens on {address}. Set GATEWAY_PORT if the gateway uses another port"
    if isinstance(error, TimeoutError):
        return f"{address} is silent for {_HEALTHCHECK_S:.0f} s"
    if isinstance(error, OSError):
        return f"{address} cannot be reached ({error.strerror})"
    return f"{address} answers with something that is not HTTP"


def ask(settings: Settings) -> dict[str, Any]:
    """Return the status and the body of this machine's gateway at `/readyz`, or the reason why it does not answer."""
    address = address_for_people(settings.host, settings.port).removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=_HEALTHCHECK_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return {"status": answer.status, "body": json.loads(answer.read(_MOST_BYTES))}
    except (OSError, ValueError, http.client.HTTPException) as error:
        return {"unread": type(error).__name__}
    finally:
        connection.close()


def healthcheck() -> None:
    """Ask this machine's gateway whether it is ready, for a container's health check.

    The exit code is 0 when it is, and 1 when it is not.
    """
    settings = load_settings(os.environ)
    address = address_for_people(settings.host, settings.port).removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=_HEALTHCHECK_S)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        output.say(f"No gateway answers: {_explain_silence(error, address)}")
        raise typer.Exit(EXIT_REFUSED) from error
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        output.say(f"The gateway at {address} is not ready ({status})")
        raise typer.Exit(EXIT_REFUSED)
