"""Gives memory that was freed after a burst of pictures back to the system.

Called by `app` while nothing runs. Never frees anything that is in use.
"""

from __future__ import annotations

import ctypes
import sys

# Only glibc has it; musl and macOS return freed memory by themselves.
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def trim() -> bool:
    """Whether the system got any memory back; blocks for milliseconds, so call it in a thread.

    glibc by itself gives back only what lies at the end of its heap, and one small object there keeps the rest.
    """
    return _TRIM is not None and bool(_TRIM(0))
