"""The state of a running simulator, in one object that all endpoints share."""

import asyncio
from collections import deque
from dataclasses import dataclass
from decimal import Decimal

from gateway.simulator.config import SimulatorConfig
from gateway.simulator.journal import Book, Log, Purchase, Told
from gateway.simulator.links import LinkTable
from gateway.simulator.picture import PictureDrawer
from gateway.simulator.rules import FaultTable
from gateway.simulator.tasks import TaskTable


@dataclass
class SimulatorState:
    """The state of one simulator, from its start to its shutdown."""

    config: SimulatorConfig
    faults: FaultTable
    book: Book
    log: Log
    tasks: TaskTable
    links: LinkTable
    drawer: PictureDrawer
    callbacks: set[asyncio.Task[None]]
    told: deque[Told]
    spent: Decimal = Decimal(0)

    @classmethod
    def make(cls, config: SimulatorConfig) -> "SimulatorState":
        return cls(
            config=config,
            faults=FaultTable(),
            book=Book(),
            log=Log(config.log_entries),
            tasks=TaskTable(config.task_entries),
            links=LinkTable(config.link_entries, config.upload_space),
            drawer=PictureDrawer(config.drawing_threads),
            callbacks=set(),
            told=deque(maxlen=config.log_entries),
        )

    def buy(self, purchase: Purchase) -> None:
        """Write an accepted submission into the book; apiany's are paid from its balance."""
        self.book.accept(purchase)
        if purchase.upstream == "apiany":
            self.spent += purchase.price_usd

    def refund(self, purchase: Purchase) -> None:
        """Refund a submission, once."""
        if purchase.refunded:
            return
        purchase.refunded = True
        if purchase.upstream == "apiany":
            self.spent -= purchase.price_usd

    def refund_ended_tasks(self) -> None:
        """Refund the failed tasks that have ended, polled or not."""
        for task in self.tasks.take_refundable():
            self.refund(task.purchase)

    @property
    def balance(self) -> int:
        """apiany's credits that are left."""
        self.refund_ended_tasks()
        return self.config.credits - self.credits_of(self.spent)

    def credits_of(self, dollars: Decimal) -> int:
        return int(dollars * self.config.prices.credits_per_usd)

    def reset(self) -> None:
        """Clear rules, book, log, tasks and files, and cancel pending callbacks."""
        for callback in self.callbacks:
            callback.cancel()
        self.told.clear()
        self.faults.clear()
        self.book.clear()
        self.log.clear()
        self.tasks.clear()
        self.links.clear()
        self.spent = Decimal(0)

    def close(self) -> None:
        self.reset()
        self.drawer.close()
        self.links.close()
