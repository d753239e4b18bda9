"""A task's end is told to its callback: unsigned, again when it fails, to loopback only."""

import json
import socket
import threading

import pytest

from gateway.simulator.callbacks import is_loopback


def _listen(statuses):
    """A listener that answers each request with the next status; gives its URL and what it was sent."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(10)
    bodies = []

    def serve():
        for status in statuses:
            wire, _ = server.accept()
            with wire, wire.makefile("rb") as reader:
                length = 0
                while (line := reader.readline().strip()) != b"":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                bodies.append(json.loads(reader.read(length)))
                wire.sendall(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())

    thread = threading.Thread(target=serve)
    thread.start()
    return server, thread, bodies


@pytest.mark.parametrize(("statuses", "calls"), [([200], 1), ([500, 204], 2), ([500, 500, 500], 3)])
def test_callback_is_told(hand, statuses, calls):
    """The callback gets the finished task, and gets it again until it says it has it, three times at most."""
    server, thread, bodies = _listen(statuses)
    port = server.getsockname()[1]
    task_id = hand.submit(callback_url=f"http://127.0.0.1:{port}/told").json()["task_id"]
    thread.join(10)
    server.close()
    assert len(bodies) == calls
    assert {(body["task_id"], body["status"]) for body in bodies} == {(task_id, "succeeded")}
    assert bodies[0]["result"]["data"][0]["url"].startswith(hand.url)


def test_only_loopback_is_called():
    """A callback anywhere but on this machine is accepted and never called."""
    assert is_loopback("http://127.0.0.1:1/")
    assert is_loopback("http://[::1]:1/")
    assert is_loopback("http://localhost/")
    assert not is_loopback("http://10.0.0.1/")
    assert not is_loopback("http://example.com/")
    assert not is_loopback("http://127.0.0.1.example.com/")


def told(hand):
    return hand.client.get("/_callbacks").json()


def test_faults_change_callbacks(hand):
    """A callback may come early, often, elsewhere or never, and what was sent is listed."""
    server, thread, bodies = _listen([200] * 3)
    url = f"http://127.0.0.1:{server.getsockname()[1]}/told?token=AB"
    hand.fault("callback", {"early": True, "body": "claims_success"})
    early = hand.submit(callback_url=url).json()["task_id"]
    assert [(body["task_id"], body["status"]) for body in bodies] == [(early, "succeeded")]
    hand.fault("callback", {"count": 0})
    hand.submit(callback_url=url)
    hand.fault("callback", {"count": 2, "forged": True})
    forged = hand.submit(callback_url=url).json()["task_id"]
    thread.join(10)
    server.close()
    assert len(bodies) == 3
    sent = [(one["task_id"], one["url"], one["status"]) for one in told(hand)]
    assert sent == [(early, url, 200)] + [(forged, url[:-1] + "A", 200)] * len(sent[1:])
    hand.client.post("/_reset")
    assert told(hand) == []
