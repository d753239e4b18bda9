"""The records: the book of paid submissions and the log of every request.

The book corresponds to a vendor's invoice. The log proves that a request was never sent.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from decimal import Decimal


@dataclass
class Purchase:
    """One accepted, paid submission. `price_usd` is for the images made, delivered or not."""

    id: str
    upstream: str
    model: str
    operation: str
    n: int
    prompt: str
    size_asked: str
    size_made: str
    quality: str
    price_usd: Decimal
    key: str
    references: int
    mask: bool
    time: float = field(default_factory=time.time)
    images_delivered: int = 0
    refunded: bool = False
    task_id: str | None = None

    def show(self) -> dict[str, object]:
        return asdict(self) | {"price_usd": f"{self.price_usd:f}"}


@dataclass
class Seen:
    """One request. `status` is None when it got no answer; `ending` then has the reason."""

    id: int
    method: str
    path: str
    query: str
    upstream: str
    endpoint: str
    headers: dict[str, object]
    time: float = field(default_factory=time.time)
    model: str | None = None
    fields: dict[str, object] = field(default_factory=dict)
    files: list[dict[str, object]] = field(default_factory=list)
    status: int | None = None
    ending: str = "open"
    refusal: str | None = None
    undocumented: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    purchase: str | None = None

    def show(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Told:
    """One sent callback. `status` is None when it got no answer."""

    task_id: str
    url: str
    status: int | None
    time: float = field(default_factory=time.time)


class Book:
    """The paid submissions in the order of acceptance."""

    def __init__(self) -> None:
        self._purchases: list[Purchase] = []
        self._numbers = itertools.count(1)

    def purchases(self) -> list[Purchase]:
        return list(self._purchases)

    def next_id(self) -> str:
        return f"buy_{next(self._numbers):06d}"

    def accept(self, purchase: Purchase) -> None:
        self._purchases.append(purchase)

    def clear(self) -> None:
        self._purchases.clear()


class Log:
    """The last requests up to the bound, oldest first."""

    def __init__(self, bound: int) -> None:
        self._entries: deque[Seen] = deque(maxlen=bound)
        self._numbers = itertools.count(1)

    def open(self, make: Callable[[int], Seen]) -> Seen:
        entry = make(next(self._numbers))
        self._entries.append(entry)
        return entry

    def entries(self) -> list[Seen]:
        return list(self._entries)

    def clear(self) -> None:
        self._entries.clear()
