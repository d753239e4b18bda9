"""`python -m gateway.simulator`: the simulator alone, on a port of its own."""

import argparse

from gateway.simulator.config import SimulatorConfig
from gateway.simulator.server import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gateway.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0 takes a free one")
    parser.add_argument("--fd", type=int, default=None, help="a listening socket, in place of host and port")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds to make a picture")
    parser.add_argument("--link-lifetime", type=float, default=24 * 3600.0, help="seconds a link lives")
    parser.add_argument("--pad-bytes", type=int, default=None, help="pad every picture to this size")
    given = parser.parse_args()
    config = SimulatorConfig(latency=given.latency, link_lifetime=given.link_lifetime, pad_bytes=given.pad_bytes)
    run(given.host, given.port, config, fd=given.fd)


if __name__ == "__main__":
    main()
