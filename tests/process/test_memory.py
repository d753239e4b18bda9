"""`gateway.process.memory`: memory that was freed does not stay with the process."""

import subprocess
import sys

import pytest

PROGRAM = """
import os
from gateway.process import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

pieces = [bytes(65_000) for _ in range(1000)]
last = bytes(65_000)
del pieces
before = resident()
assert memory.trim()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps what was freed")
def test_trim_gives_freed_memory_back() -> None:
    """What a burst freed below one living object goes back to the system, which glibc alone does not do."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 32 * 2**20
