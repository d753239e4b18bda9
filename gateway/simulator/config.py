"""The configuration of a simulator: its pace, its words, its prices and its bounds.

It does not change after the start.
"""

from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True)
class Prices:
    """Dollars. gpt-image-2 follows the official token formula; the others are flat example prices."""

    text_token: Decimal = Decimal("0.000005")
    image_input_token: Decimal = Decimal("0.000008")
    image_output_token: Decimal = Decimal("0.000030")
    anyfast_c_image: Decimal = Decimal("0.03")
    apiany_image: dict[str, Decimal] = field(
        default_factory=lambda: {"1K": Decimal("0.015"), "2K": Decimal("0.03"), "4K": Decimal("0.06")}
    )
    credits_per_usd: int = 1000


@dataclass(frozen=True)
class StatusWords:
    """The status words of apiany's tasks, on which its pages and related services disagree."""

    pending: str = "pending"
    running: str = "processing"
    done: str = "succeeded"
    failed: str = "failed"
    expired: str = "expired"


@dataclass(frozen=True)
class SimulatorConfig:
    """All settings of a simulator. Times are in seconds, spaces in bytes."""

    latency: float = 0.05
    link_lifetime: float = 24 * 3600
    words: StatusWords = StatusWords()
    prices: Prices = field(default_factory=Prices)
    credits: int = 10_000_000
    log_entries: int = 50_000
    link_entries: int = 20_000
    task_entries: int = 20_000
    upload_space: int = 4 * 1024**3
    drawing_threads: int = 2
    pad_bytes: int | None = None
