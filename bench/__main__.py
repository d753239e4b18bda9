"""`python -m bench NAME` runs one benchmark. Exit code 1: a figure passes its limit; 2: it could not be run.

A new benchmark is one module with `NAME`, `HELP`, `add_options` and `run`, and its name in `BENCHMARKS`.
"""

from __future__ import annotations

import argparse
import sys

from bench import ledger, memory, overload, proxy, tasks, tls
from bench.processes import BenchError

BENCHMARKS = (memory, ledger, tasks, proxy, tls, overload)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the served gateway on loopback.")
    names = parser.add_subparsers(title="benchmarks", required=True, metavar="NAME")
    for module in BENCHMARKS:
        own = names.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        module.add_options(own)
        own.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    try:
        return 0 if options.run(options) else 1
    except BenchError as error:
        sys.stderr.write(f"The benchmark could not be run: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
