"""Pools whose threads all start at once, so that no later work fails because the machine starts no more threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

START_S = 10.0


def open_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Start a pool and wait until all its threads run. Raises RuntimeError unless all start within 10 s."""
    pool = ThreadPoolExecutor(threads, name)
    # A pool starts a thread where none is idle, and none is idle before all have started.
    together = threading.Barrier(threads)
    try:
        for started in [pool.submit(together.wait, START_S) for _ in range(threads)]:
            started.result()
    except (RuntimeError, threading.BrokenBarrierError) as error:
        together.abort()
        pool.shutdown(wait=False, cancel_futures=True)
        raise RuntimeError(f"the threads {name} cannot be started: {error}") from error
    return pool
