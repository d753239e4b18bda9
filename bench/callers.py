"""Many callers in one process, each with one request; the answers and their times. Like an SDK, they keep a connection.

`python -m bench.callers` reads one `Burst` as JSON on stdin and writes the answers as JSON on stdout.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Burst:
    """`count` generations of `model`, arriving evenly over `over_s` seconds; each prompt is `mark` and a number."""

    port: int
    key: str
    model: str
    mark: str
    count: int
    over_s: float


@dataclass(frozen=True)
class Answer:
    """One answer. `status` 0: it is incomplete. `ended` is the unix time of its last byte."""

    prompt: str
    status: int
    ended: float


def run(burst: Burst) -> list[Answer]:
    """Send the burst from a process of its own and wait for all answers."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.callers"],
        input=json.dumps(asdict(burst)),
        capture_output=True,
        text=True,
        check=True,
    )
    return [Answer(**one) for one in json.loads(done.stdout)]


async def _ask(burst: Burst, number: int, kept: list[asyncio.StreamWriter]) -> Answer:
    prompt = f"{burst.mark} {number}"
    await asyncio.sleep(burst.over_s * number / burst.count)
    status = 0
    try:
        async with asyncio.timeout(TIMEOUT_S):
            status = await _exchange(burst, prompt, kept)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        sys.stderr.write(f"{prompt}: {error!r}\n")
    return Answer(prompt, status, time.time())


async def _exchange(burst: Burst, prompt: str, kept: list[asyncio.StreamWriter]) -> int:
    fields = {"model": burst.model, "prompt": prompt, "size": "1024x1024", "response_format": "url"}
    body = json.dumps(fields).encode()
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1:{burst.port}\r\nAuthorization: Bearer {burst.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", burst.port)
    # Closed at the end of all: a caller that closes at once has perhaps not read its answer.
    kept.append(writer)
    writer.write(head.encode("ascii") + body)
    start = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", start)
    if length is None:
        return 0
    await reader.readexactly(int(length[1]))
    return int(start.split()[1])


async def _ask_all(burst: Burst) -> list[Answer]:
    kept: list[asyncio.StreamWriter] = []
    try:
        return await asyncio.gather(*(_ask(burst, number, kept) for number in range(burst.count)))
    finally:
        for writer in kept:
            writer.close()


def main() -> None:
    burst = Burst(**json.load(sys.stdin))
    json.dump([asdict(answer) for answer in asyncio.run(_ask_all(burst))], sys.stdout)


if __name__ == "__main__":
    main()
