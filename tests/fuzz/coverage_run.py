"""One target under atheris, guided by coverage: `python -m tests.fuzz.coverage_run TARGET SECONDS CORPUS...`.

It ends at the first input that breaks a promise, and writes it to the working folder.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["gateway", "python_multipart"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run libFuzzer; it never returns."""
    target, seconds, *folders = sys.argv[1:]
    options = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=5",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, *folders], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
