"""The stand-in vendors in a process of their own, and the tests' side of them: faults, the book, the log."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

from gateway.process.children import stop


def wait_until(is_true: Callable[[], Any], what: str = "it", seconds: float = 5.0) -> Any:
    """What `is_true` answers once that is true; a failure when the time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := is_true()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.01)
    return answer


class Simulator:
    """The stand-in vendors in a process of their own, and the test's side of them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway.simulator", "--port", "0", "--latency", "0.02"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().rpartition(" ")[2].strip()
        self._client = httpx.Client(base_url=self.url, trust_env=False, verify=False)

    def close(self) -> None:
        self._client.close()
        stop(self._process, 5)  # type: ignore[arg-type]
        assert self._process.stdout is not None
        self._process.stdout.close()

    def reset(self) -> None:
        self._client.post("/_reset").raise_for_status()

    def fault(self, kind: str, *, times: int | None = 1, skip: int = 0, **options: Any) -> None:
        """Lay a rule down. `upstream`, `model`, `key` and `endpoint` choose its requests, the rest is the fault's."""
        chosen = {name: options.pop(name) for name in ("upstream", "model", "key", "endpoint") if name in options}
        rule = {"times": times, "skip": skip, **chosen, "fault": {"kind": kind, **options}}
        answer = self._client.post("/_faults", json=rule)
        assert answer.status_code == 201, answer.text

    def heal(self) -> None:
        """Take all rules back."""
        self._client.delete("/_faults").raise_for_status()

    def book(self) -> list[dict[str, Any]]:
        """The accepted paid submissions."""
        return self._client.get("/_book").json()

    def log(self, *endpoints: str) -> list[dict[str, Any]]:
        """The requests that were seen, of these endpoints or of all."""
        seen = self._client.get("/_log").json()
        return [one for one in seen if not endpoints or one["endpoint"] in endpoints]

    def told(self) -> list[dict[str, Any]]:
        """The callbacks that were sent, each with the status of its answer."""
        return self._client.get("/_callbacks").json()

    def paid(self) -> list[dict[str, Any]]:
        """The paid POSTs that were seen, accepted or not."""
        return [one for one in self.log("generations", "edits") if one["method"] == "POST"]
