"""Image jobs: the parameters of a request, sizes, the job itself and its fingerprint. No network, no state."""
