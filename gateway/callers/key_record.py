"""The record of an API key, and the fields that an operator may set: one checked model for CLI and admin API.

Of a key's secret it holds the beginning alone, and no digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, TypeAdapter

from gateway.jobs.job import MIN_PIXELS
from gateway.process.addresses import read_network

_ANY: TypeAdapter[Any] = TypeAdapter(Any)

LONGEST_URL = 2048
"""The most characters of a webhook's address."""

_LABEL_BYTES = 128
_METADATA_PAIRS = 16


def _label(text: str) -> str:
    """Return the name. Raises ValueError for one that the ledger would refuse."""
    if text != text.strip() or not text or len(text.encode()) > _LABEL_BYTES or not text.isprintable():
        raise ValueError(f"must be 1 to {_LABEL_BYTES} bytes of plain text without spaces at its ends")
    return text


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _written(moment: object) -> object:
    """Return a text or a datetime. Raises ValueError for others, and for a number as a text: pydantic would read it."""
    if not isinstance(moment, str | datetime) or (isinstance(moment, str) and moment.strip("+-. ").isdecimal()):
        raise ValueError("must be a time such as 2027-01-31T18:00:00Z, or a date")
    return moment


def _utc(moment: datetime) -> datetime:
    """The time in UTC, in whole seconds. A time without a zone is in UTC already."""
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)).replace(microsecond=0)


def _web_address(text: str) -> str:
    """Return a text that has the form of a web address; else raise ValueError. Its host is checked elsewhere."""
    if len(text) > LONGEST_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"must be a web address of at most {LONGEST_URL} plain characters")
    if not text.startswith(("https://", "http://")):
        raise ValueError("must be a web address, such as https://app.example.com/hooks/images")
    return text


Label = Annotated[str, AfterValidator(_label)]
Network = Annotated[str, AfterValidator(read_network)]
Moment = Annotated[datetime, BeforeValidator(_written), AfterValidator(_utc)]
QualityName = Literal["low", "medium", "high"]
Names = Annotated[tuple[Label, ...], Field(min_length=1, max_length=100), AfterValidator(_unique)]
Networks = Annotated[tuple[Network, ...], Field(min_length=1, max_length=100), AfterValidator(_unique)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=_METADATA_PAIRS),
]


class KeyChange(BaseModel):
    """The fields of a key that an operator may set. A field that is not named stays; None removes a restriction.

    A None in `models`, `upstreams` or `addresses` allows all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Label = Field("", description="The key's owner or purpose.")
    team: Label | None = Field(None, description="The team whose limits it shares.")
    enabled: StrictBool = Field(True, description="False: the key is refused.")
    models: Names | None = Field(None, description="The models it may use, aliases included; null: all.")
    upstreams: Names | None = Field(None, description="The upstreams that may serve it; null: all.")
    max_quality: QualityName | None = Field(None, description="The best quality it may ask for.")
    max_pixels: Annotated[StrictInt, Field(ge=MIN_PIXELS)] | None = Field(
        None, description="The most pixels of one image."
    )
    max_n: Annotated[StrictInt, Field(ge=1, le=10)] | None = Field(None, description="The most images of one request.")
    may_pin_upstream: StrictBool = Field(False, description="True: it may choose its upstream by a header.")
    expires: Moment | None = Field(None, description="The time it stops working; without a zone it is UTC.")
    addresses: Networks | None = Field(None, description="Addresses or networks it may be used from; null: all.")
    webhook: WebAddress | None = Field(
        None, description="The address for messages about the end of its tasks; null: only those in its requests."
    )
    metadata: Metadata = Field(default_factory=dict, description="Up to 16 texts of the operator's own.")

    def changes(self) -> dict[str, Any]:
        """The fields that this change sets, with their values."""
        return self.model_dump(exclude_unset=True)


class NewKey(KeyChange):
    """A new key. Only its name is required."""

    name: Label = Field(description="The key's owner or purpose.")


class KeyRecord(BaseModel):
    """A key as it is stored. `hint` is the beginning of its secret, for people.

    `rotated` is the time of the last rotation; None before the first. `webhook_secret` is the number of the secret that
    signs its webhooks. The secret before it signs them too, until `webhook_overlap`.
    """

    # A replica of an older version must read the record of a newer one.
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    name: str
    team: str | None = None
    created: datetime
    enabled: bool = True
    demo: bool = False
    models: tuple[str, ...] | None = None
    upstreams: tuple[str, ...] | None = None
    max_quality: QualityName | None = None
    max_pixels: int | None = None
    max_n: int | None = None
    may_pin_upstream: bool = False
    expires: datetime | None = None
    addresses: tuple[str, ...] | None = None
    webhook: str | None = None
    webhook_secret: int = 1
    webhook_overlap: datetime | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    rotated: datetime | None = None
    hint: str = ""

    def has_expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now

    def webhook_secrets(self, now: datetime) -> tuple[int, ...]:
        """The numbers of the secrets that sign its webhooks now, the present one first."""
        is_former = self.webhook_overlap is not None and now < self.webhook_overlap
        return (self.webhook_secret, self.webhook_secret - 1) if is_former else (self.webhook_secret,)

    def to_hash(self) -> dict[str, str]:
        """The record as a Redis hash, each field as JSON, so that one field can change without the others."""
        return {field: _ANY.dump_json(value).decode() for field, value in self.model_dump(mode="json").items()}

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> KeyRecord:
        return cls.model_validate({field: _ANY.validate_json(value) for field, value in fields.items()})
