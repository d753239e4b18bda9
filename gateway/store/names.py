"""Every name in Redis: its type, how long it lives, who writes it and what it holds.

Used by the modules of `gateway.store` alone. All names carry one hash tag, so that one script may touch any of them on
a Cluster too.
"""

from __future__ import annotations

from dataclasses import dataclass

TAG = "{igw}"


@dataclass(frozen=True, slots=True)
class Name:
    """One kind of name. Called with the parts that vary, it is the name itself."""

    stem: str
    kind: str
    lifetime: str
    owner: str
    holds: str

    def __call__(self, *parts: str) -> str:
        return ":".join((TAG, self.stem, *parts))


PEPPER_CHECK = Name("pepper-check", "string", "for ever", "store.keys", "an HMAC that only the right pepper makes")
SIGNING_CHECK = Name(
    "signing-check", "string", "for ever", "store.checks", "an HMAC that only the right signing key makes"
)
KEY_INDEX = Name("keys", "hash", "for ever", "store.keys", "key id → digest of the key")
KEY = Name("key", "hash", "until the key is deleted", "store.keys", "one API key's record, by the digest of the key")

TASK = Name(
    "task", "hash", "a day after the task's last change", "store.tasks", "one task: what, for whom, its calls, its end"
)

NAMES = (PEPPER_CHECK, SIGNING_CHECK, KEY_INDEX, KEY, TASK)
