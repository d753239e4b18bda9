"""The health of the upstreams: circuit breakers, cool-downs, the concurrency queue, the retry budget, checks, drift."""
