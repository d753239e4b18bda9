"""The state of the upstreams: circuit breakers, cool-downs, concurrency, the waiting queue, the retry budget,
checks, drift.
"""
