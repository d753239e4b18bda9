"""Benchmarks of the served gateway: `python -m bench NAME`. Loopback only; the simulator plays the upstreams."""
