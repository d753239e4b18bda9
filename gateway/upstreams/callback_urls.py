"""The URLs to which a vendor reports the end of a paid call, and the check of the URL of a callback that arrives.

A callback is a hint and never evidence: it can cause polls, and it can name the ticket of a lost answer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from gateway.process.settings import Settings

_VERSION = "v1"

TRUSTED_AFTER = 3
"""After this many tasks in a row whose end a callback reported first, the gateway polls less often."""


class CallbackTrust:
    """The reliability of one target's callbacks.

    `tasks` counts the last tasks in a row whose end a callback reported before a poll, up to TRUSTED_AFTER.
    """

    def __init__(self) -> None:
        self.tasks = 0

    @property
    def is_earned(self) -> bool:
        return self.tasks >= TRUSTED_AFTER

    def note(self, *, was_told: bool) -> None:
        """Record the end of a task. A callback that reported it first adds 1 to `tasks`, up to TRUSTED_AFTER.

        A poll that found it first sets `tasks` to 0.
        """
        self.tasks = min(self.tasks + 1, TRUSTED_AFTER) if was_told else 0


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The maker of callback URLs. `origin` is the gateway's public address; the keys of `trust` are targets' labels."""

    origin: str
    secret: bytes = field(repr=False)
    trust: dict[str, CallbackTrust] = field(default_factory=dict)

    def address(self, kind: str, task: str, call: str) -> str:
        """The URL for a call's callback from a vendor of this kind. The token is in the query, which no log keeps."""
        return f"{self.origin}/callbacks/{kind}/{task}/{call}?token={self._token(kind, task, call)}"

    def knows(self, kind: str, task: str, call: str, token: str) -> bool:
        """True when the token is that of the address for this kind, task and call."""
        return hmac.compare_digest(token.encode(errors="replace"), self._token(kind, task, call).encode())

    def trust_of(self, label: str) -> CallbackTrust:
        return self.trust.setdefault(label, CallbackTrust())

    def _token(self, kind: str, task: str, call: str) -> str:
        message = f"imagegate callback {_VERSION}\n{kind}\n{task}\n{call}".encode(errors="replace")
        return base64.urlsafe_b64encode(hmac.digest(self.secret, message, hashlib.sha256)).decode().rstrip("=")


def open_callbacks(settings: Settings) -> Callbacks | None:
    """Return the callbacks; None if they are off, because the public address or the callback secret is not set."""
    if settings.public_url is None or settings.callback_secret is None:
        return None
    return Callbacks(settings.public_url, settings.callback_secret.get_secret_value().encode())
