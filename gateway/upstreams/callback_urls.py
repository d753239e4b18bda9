"""The addresses at which a vendor may tell that a paid call has ended: made for its submission, checked when called.

Used by `sending`, `hearing` and the callback route. A callback is a hint and never evidence: whoever knows its address
can have one ticket asked after, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from gateway.process.settings import Settings

_VERSION = "v1"

TRUSTED_AFTER = 3
"""Tasks in a row whose end a callback was first to tell, from which on fewer are asked after."""


class CallbackTrust:
    """How well one target's callbacks come: `tasks` in a row were ended by one."""

    def __init__(self) -> None:
        self.tasks = 0

    @property
    def is_earned(self) -> bool:
        return self.tasks >= TRUSTED_AFTER

    def note(self, *, was_told: bool) -> None:
        """A task has ended: a callback told of it, or it was found by asking."""
        self.tasks = min(self.tasks + 1, TRUSTED_AFTER) if was_told else 0


@dataclass(frozen=True, slots=True)
class Callbacks:
    """`origin` is this gateway's own address as vendors see it; `trust` is by target."""

    origin: str
    secret: bytes = field(repr=False)
    trust: dict[str, CallbackTrust] = field(default_factory=dict)

    def address(self, kind: str, task: str, call: str) -> str:
        """Where a vendor of this kind may tell of a call. The token is in the query, which no log of ours keeps."""
        return f"{self.origin}/callbacks/{kind}/{task}/{call}?token={self._token(kind, task, call)}"

    def knows(self, kind: str, task: str, call: str, token: str) -> bool:
        """Whether this gateway made the address."""
        return hmac.compare_digest(token.encode(errors="replace"), self._token(kind, task, call).encode())

    def trust_of(self, label: str) -> CallbackTrust:
        return self.trust.setdefault(label, CallbackTrust())

    def _token(self, kind: str, task: str, call: str) -> str:
        message = f"imagegate callback {_VERSION}\n{kind}\n{task}\n{call}".encode(errors="replace")
        return base64.urlsafe_b64encode(hmac.digest(self.secret, message, hashlib.sha256)).decode().rstrip("=")


def open_callbacks(settings: Settings) -> Callbacks | None:
    """None where callbacks are off: both the public address and a secret of their own are needed."""
    if settings.public_url is None or settings.callback_secret is None:
        return None
    return Callbacks(settings.public_url, settings.callback_secret.get_secret_value().encode())
