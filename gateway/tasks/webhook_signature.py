"""Secrets and signatures of webhooks in the form of Standard Webhooks (standardwebhooks.com). Pure.

A secret is derived from the gateway's signing key, and stored nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"


def make_secret(signing_key: bytes, key_id: str, number: int) -> str:
    """Derive the secret of a key's webhooks. `number` is the secret's own number.

    The first secret has the number 1. A rotation of the webhook secret adds 1. A rotation of the key adds nothing.
    """
    message = f"imagegate webhook v1\n{key_id}\n{number}".encode()
    return PREFIX + base64.b64encode(hmac.digest(signing_key, message, hashlib.sha256)).decode()


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature` with a signature by each secret, of which a receiver may hold any.

    `timestamp` is in unix seconds.
    """
    text = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{_sign(secret, text)}" for secret in secrets)


def _sign(secret: str, text: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode()
