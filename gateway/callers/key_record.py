"""What is known of an API key, and what an operator may say of one: one checked model for CLI and admin API alike.

Kept by `store.keys`; read by `auth`. Holds neither a key nor its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, TypeAdapter

from gateway.jobs.sizes import MIN_PIXELS
from gateway.process.addresses import read_network

_ANY: TypeAdapter[Any] = TypeAdapter(Any)

LONGEST_URL = 2048
"""Characters of an address that is told of tasks."""

_LABEL_BYTES = 128
_METADATA_PAIRS = 16


def _label(text: str) -> str:
    """The ledger's own rule for names, so that no key is made that it would refuse."""
    if text != text.strip() or not text or len(text.encode()) > _LABEL_BYTES or not text.isprintable():
        raise ValueError(f"must be 1 to {_LABEL_BYTES} bytes of plain text without spaces at its ends")
    return text


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _written(moment: object) -> object:
    """A bare number would be read as seconds since 1970, which nobody means."""
    if not isinstance(moment, str | datetime) or (isinstance(moment, str) and moment.strip("+-. ").isdecimal()):
        raise ValueError("right is a time such as 2027-01-31T18:00:00Z, or a date")
    return moment


def _utc(moment: datetime) -> datetime:
    """A time without a zone is UTC's."""
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)).replace(microsecond=0)


def _web_address(text: str) -> str:
    """What can be no address at all; whether it may be told is the catalogue's and the network's to say."""
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
    """The fields of a key that an operator may set; those that were not named stay as they are. None lifts a limit.

    `models`, `upstreams` and `addresses` None allow all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Label = Field("", description="Whose key it is, or what for.")
    team: Label | None = Field(None, description="The team whose limits it shares.")
    enabled: StrictBool = Field(True, description="Whether the key works.")
    models: Names | None = Field(None, description="The models it may use, aliases included; null: all.")
    upstreams: Names | None = Field(None, description="The upstreams that may serve it; null: all.")
    max_quality: QualityName | None = Field(None, description="The best quality it may ask for.")
    max_pixels: Annotated[StrictInt, Field(ge=MIN_PIXELS)] | None = Field(
        None, description="The most pixels of one image."
    )
    max_n: Annotated[StrictInt, Field(ge=1, le=10)] | None = Field(None, description="The most images of one request.")
    may_pin_upstream: StrictBool = Field(False, description="Whether it may choose the upstream by a header.")
    expires: Moment | None = Field(None, description="When it stops working; a time without a zone is UTC.")
    addresses: Networks | None = Field(None, description="Addresses or networks it may be used from; null: all.")
    webhook: WebAddress | None = Field(
        None, description="The address that is told of the end of its tasks; null: none but those its requests name."
    )
    metadata: Metadata = Field(default_factory=dict, description="Up to 16 texts of the operator's own.")

    def changes(self) -> dict[str, Any]:
        """The fields that were named."""
        return self.model_dump(exclude_unset=True)


class NewKey(KeyChange):
    """A key to be made. Only its name is required."""

    name: Label = Field(description="Whose key it is, or what for.")


class KeyRecord(BaseModel):
    """What is known of a key; `hint` is the key's beginning, for people, `rotated` when it got its present secret.

    `webhook_secret` counts the secrets that signed its webhooks; the one before signs too until `webhook_overlap`.
    """

    # A replica of an older version must read a record that a newer one wrote.
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
        """The numbers of the secrets that sign its webhooks, the present one first."""
        is_former = self.webhook_overlap is not None and now < self.webhook_overlap
        return (self.webhook_secret, self.webhook_secret - 1) if is_former else (self.webhook_secret,)

    def to_hash(self) -> dict[str, str]:
        """The record as a Redis hash: each field by itself, as JSON, so that one can change without the others."""
        return {field: _ANY.dump_json(value).decode() for field, value in self.model_dump(mode="json").items()}

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> KeyRecord:
        return cls.model_validate({field: _ANY.validate_json(value) for field, value in fields.items()})
