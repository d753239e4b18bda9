"""Who is asking: turns a request's credentials into a Caller, before its body is read.

Asked by `api` for every route that is not public. Never says which part of a key was wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import errors
from gateway.services import Services
from gateway.store.answers import LedgerLost
from gateway.store.client import StoreUnavailable
from gateway.store.keys import KeyRecord


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, with rights."""

    key: KeyRecord

    def check_model(self, name: str) -> None:
        """Raises ModelNotAllowed unless this caller may use the model, by the name that was sent."""
        if self.key.models is not None and name not in self.key.models:
            allowed = ", ".join(self.key.models) or "none"
            raise errors.ModelNotAllowed(
                f"This key may not use the model `{name}`; it may use {allowed}.", param="model"
            )


async def authenticate(services: Services, authorization: str | None) -> Caller:
    """The caller behind an `Authorization: Bearer` header. Raises InvalidApiKey, KeyDisabled, QuotaStoreUnavailable."""
    scheme, _, secret = (authorization or "").strip().partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise errors.InvalidApiKey(
            "You didn't provide an API key. Send it in an Authorization header using Bearer auth "
            "(Authorization: Bearer YOUR_KEY); `imagegate keys create` makes one."
        )
    try:
        record = await services.keys.lookup(secret)
    except StoreUnavailable as error:
        raise store_away() from error
    if record is None:
        raise errors.InvalidApiKey(f"Incorrect API key provided: {_hint(secret)}. This gateway's keys begin with igw_.")
    if not record.enabled:
        raise errors.KeyDisabled("This API key is disabled; ask whoever runs this gateway.")
    return Caller(record)


def store_away(reason: StoreUnavailable | None = None) -> errors.QuotaStoreUnavailable:
    if isinstance(reason, LedgerLost):
        return errors.QuotaStoreUnavailable(
            "The gateway's Redis was emptied or put back, so nothing that costs money is started until its operator "
            "has run `imagegate audit --accept`.",
            retry_after=60,
        )
    return errors.QuotaStoreUnavailable(
        "The gateway's Redis does not answer, so nothing that costs money is started. Try again shortly.", retry_after=5
    )


def _hint(secret: str) -> str:
    """Enough of a wrong key for its owner to recognise it, too little to be worth stealing."""
    plain = "".join(char if char.isascii() and char.isprintable() else "?" for char in secret)
    return f"{plain[:4]}***{plain[-4:]}" if len(plain) > 12 else "***"
