"""Looks again and again at how a gateway's targets are, while something else happens."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict

from tests.support.gateways import Gateway


class Watch:
    """Remembers the most calls that each target had at a time, and every state of its breaker, in a `with`."""

    def __init__(self, gateway: Gateway) -> None:
        self.most: Counter[str] = Counter()
        self.breakers: defaultdict[str, set[str]] = defaultdict(set)
        self._seen: list[set[str]] = []
        self._gateway = gateway
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def together(self, *labels: str) -> bool:
        """Whether these had calls under way at one moment."""
        return any(set(labels) <= busy for busy in self._seen)

    def _look(self) -> None:
        while not self._over.wait(0.01):
            found = self._gateway.conditions()
            self._seen.append({label for label, condition in found.items() if condition.in_flight})
            for label, condition in found.items():
                self.most[label] = max(self.most[label], condition.in_flight)
                self.breakers[label].add(condition.breaker)
