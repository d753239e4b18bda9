"""The stores that an operator's action reads and changes, as one small object."""

from __future__ import annotations

from typing import Protocol

from gateway.callers.key_store import KeyStore
from gateway.callers.operator_store import OperatorStore
from gateway.catalogue.document import Document
from gateway.health.drift import DriftBook
from gateway.history.changes import Changes
from gateway.history.history import History
from gateway.history.usage import UsageReader
from gateway.money.ledger import Ledger
from gateway.net.fetcher import Fetcher
from gateway.process.settings import Settings
from gateway.state.webhook_queue import WebhookQueue
from gateway.store.client import CommandQueue, StoreClient


class Stores(Protocol):
    """The stores of one gateway. An implementation may open each of them when it is first read."""

    @property
    def settings(self) -> Settings: ...
    @property
    def document(self) -> Document: ...
    @property
    def store_url(self) -> str: ...
    @property
    def redis(self) -> StoreClient: ...
    @property
    def command_queue(self) -> CommandQueue: ...
    @property
    def keys(self) -> KeyStore: ...
    @property
    def operators(self) -> OperatorStore: ...
    @property
    def signing_key(self) -> bytes: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def history(self) -> History: ...
    @property
    def usage(self) -> UsageReader: ...
    @property
    def changes(self) -> Changes: ...
    @property
    def drift(self) -> DriftBook: ...
    @property
    def webhook_queue(self) -> WebhookQueue: ...
    @property
    def webhook_fetcher(self) -> Fetcher: ...
