"""Reports the end of a task to its `callback_url`: unsigned, up to three times, on this machine only.

A `callback` fault makes it come early, late, often, elsewhere, never, or with another body. What was sent is listed.
"""

import asyncio
import ipaddress
import ssl
from urllib.parse import SplitResult, urlsplit

from gateway.simulator import faults
from gateway.simulator.answers import answer_json
from gateway.simulator.journal import Told
from gateway.simulator.results import show_task
from gateway.simulator.rules import StruckFaults
from gateway.simulator.state import SimulatorState
from gateway.simulator.tasks import Task

_TRIES = 3
_PAUSE_S = 0.2
_TIMEOUT_S = 5.0
_HUGE = 8 * 2**20
_ORDINARY = faults.Callback(kind="callback")


async def call_back(state: SimulatorState, task: Task, url: str, struck: StruckFaults) -> None:
    """Call the URL when the task has ended, or at once. It never calls an address outside loopback."""
    fault = struck.get(faults.Callback) or _ORDINARY
    if not is_loopback(url) or (task.ending is None and not fault.early):
        return
    if fault.early:
        # The answer to the submission waits for this callback.
        await _send(state, task, url, fault)
        return
    sending = asyncio.create_task(_send_later(state, task, url, fault))
    state.callbacks.add(sending)
    sending.add_done_callback(state.callbacks.discard)


def is_loopback(url: str) -> bool:
    """True for an address of this machine. The only name that counts is `localhost`."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _send_later(state: SimulatorState, task: Task, url: str, fault: faults.Callback) -> None:
    # The event loop counts in whole milliseconds and may wake early, while the task still runs.
    await asyncio.sleep(task.time_left() + 0.005 + fault.delay)
    await _send(state, task, url, fault)


async def _send(state: SimulatorState, task: Task, url: str, fault: faults.Callback) -> None:
    body = await _write(state, task, fault)
    if fault.forged:
        url = url[:-1] + ("A" if url[-1] != "A" else "B")
    for _ in range(fault.count):
        for attempt in range(_TRIES):
            status = await _post(urlsplit(url), body)
            state.told.append(Told(task.id, url, status))
            if status is not None and (status < 300 or fault.forged):
                break
            await asyncio.sleep(_PAUSE_S * 2**attempt)


async def _write(state: SimulatorState, task: Task, fault: faults.Callback) -> bytes:
    match fault.body:
        case "garbage":
            return b'{"task_id": '
        case "huge":
            return b"x" * _HUGE
        case "claims_success":
            made = {"data": [{"url": f"{task.base_url}/files/made-up.png"}]}
            return b"".join(answer_json({"task_id": task.id, "status": task.word("done"), "result": made}).pieces)
        case _:
            return b"".join(answer_json(await show_task(state, task, task.state())).pieces)


async def _post(url: SplitResult, body: bytes) -> int | None:
    """The status of the answer; None when there was none."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await _exchange(url, body)
    except (OSError, ValueError, IndexError):
        return None


async def _exchange(url: SplitResult, body: bytes) -> int:
    # Calls stay on loopback, and loading the system's certificates would block the loop for 20 ms.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if url.scheme == "https" else None
    if tls:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    port = url.port or (443 if tls else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=tls)
    try:
        path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {url.hostname}:{port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
