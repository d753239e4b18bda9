"""The process's memory: what was freed goes back to the system, what stays is not searched for garbage again and again.

Called by `worker` at its start and by `app` while nothing runs. Never frees anything that is in use.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable

# Only glibc has it; musl and macOS return freed memory by themselves.
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def trim() -> bool:
    """Whether the system got any memory back; blocks for milliseconds, so call it in a thread.

    glibc by itself gives back only what lies at the end of its heap, and one small object there keeps the rest.
    """
    return _TRIM is not None and bool(_TRIM(0))


async def trim_if(is_idle: Callable[[], bool]) -> None:
    """Give freed memory back if nothing runs: after 40 answers of 20 MB at once, that is 86 of 91 MiB."""
    if is_idle():
        await asyncio.to_thread(trim)


def settle() -> None:
    """Leave what the start has made out of every search for garbage, and search less often.

    Python looks after each 700 objects that were made and not dropped, which a single request makes; with many requests
    under way nearly all it finds is in use.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
