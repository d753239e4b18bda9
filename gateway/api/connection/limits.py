"""The limits of one connection, as the catalogue sets them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Times in seconds, sizes in bytes.

    `header_timeout_s` counts from connecting, or from a later request's first byte, to the end of its headers.
    `body_idle_s` bounds the wait for the body's next byte, `body_total_s` the time from the end of the headers to the
    end of the body. `answer_idle_s` bounds the wait until the client reads on, `answer_total_s` all such waits of one
    answer together. When an answer ends before its request's body, at most `linger_bytes` of that body are read, until
    nothing has arrived for `linger_s`, and for at most `linger_total_s`.
    """

    header_timeout_s: float = 10
    header_bytes: int = 32 * 1024
    header_count: int = 100
    url_bytes: int = 8 * 1024
    body_idle_s: float = 30
    body_total_s: float = 900
    answer_idle_s: float = 120
    answer_total_s: float = 3600
    linger_bytes: int = 1024 * 1024
    linger_s: float = 2
    linger_total_s: float = 30
