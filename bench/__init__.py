"""Benchmarks of the served gateway: `python -m bench NAME`. Loopback only, upstreams played by the simulator."""
