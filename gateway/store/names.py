"""Every name in Redis: its type, its lifetime, its owner and its content.

All names have one hash tag, so that one script can use any of them on a Cluster too.
"""

from __future__ import annotations

from dataclasses import dataclass

TAG = "{igw}"


@dataclass(frozen=True, slots=True)
class Name:
    """One kind of name. A call with the variable parts returns the name itself."""

    stem: str
    kind: str
    lifetime: str
    owner: str
    holds: str

    def __call__(self, *parts: str) -> str:
        return ":".join((TAG, self.stem, *parts))


PEPPER_CHECK = Name(
    "pepper-check", "string", "for ever", "callers.key_store", "an HMAC that only the right pepper makes"
)
SIGNING_CHECK = Name(
    "signing-check", "string", "for ever", "server.store_checks", "an HMAC that only the right signing key makes"
)
KEY_INDEX = Name("keys", "hash", "for ever", "callers.key_store", "key id → digest of the key")
KEY = Name(
    "key", "hash", "until the key is deleted", "callers.key_store", "one API key's record, by the digest of the key"
)
FORMER_KEY = Name(
    "former-key",
    "string",
    "a rotated key's grace time",
    "callers.key_store",
    "key id, by the digest of a former secret",
)
WRONG_KEYS = Name("wrong-keys", "string", "a minute", "callers.wrong_keys", "the number of wrong keys from one address")

OPERATOR_INDEX = Name(
    "operators", "hash", "for ever", "callers.operator_store", "operator's name → digest of the token"
)
OPERATOR = Name(
    "operator",
    "hash",
    "until the operator is deleted",
    "callers.operator_store",
    "one operator, by the digest of the token",
)

TASK = Name(
    "task",
    "hash",
    "a day after the task's last change",
    "state.task_store",
    "one task: its request, its images by slot, its end",
)
TASKS_OF = Name(
    "tasks-of",
    "sorted set",
    "a day after the key's last task",
    "state.task_store",
    "task ids of one key, by their opening",
)
CHANGED = Name(
    "changed",
    "stream",
    "the last 10,000",
    "state.task_store",
    "changed tasks, and calls with a callback",
)

WEBHOOK = Name(
    "webhook",
    "hash",
    "until its delivery, or a week after its last try",
    "state.webhook_queue",
    "one delivery to a caller's address: task, key, address, tries, body",
)
WEBHOOKS = Name(
    "webhooks", "sorted set", "while deliveries wait", "state.webhook_queue", "key id, by its next delivery, ms"
)
WEBHOOKS_OF = Name(
    "webhooks-of",
    "sorted set",
    "while deliveries wait",
    "state.webhook_queue",
    "one key's deliveries, by their time, ms",
)
WEBHOOKS_LOST = Name(
    "webhooks-lost", "sorted set", "a week each", "state.webhook_queue", "lost deliveries, by the time of the loss, ms"
)

LIMITS = Name("limits", "hash", "until the removal of the last limit", "money.ledger", "one scope's limits, by name")
WINDOW = Name(
    "window",
    "hash",
    "400 days after the window's end; the window `total`: for ever",
    "money.ledger",
    "µ$ and images held, presumed and posted by one scope in one calendar window, and the two bases",
)
RATE = Name("rate", "string", "until the rate is unused", "money.ledger", "GCRA: theoretical arrival time, µs")
RUNNING = Name("running", "hash", "while tasks run", "money.ledger", "worker → its running tasks of one scope")
LEASES = Name(
    "leases", "sorted set", "a day after the lease's end", "money.ledger", "worker, by the end of its lease, µs"
)
HOLD = Name(
    "hold",
    "hash",
    "until folded",
    "money.ledger",
    "the money side of one task: scopes, windows, owner and fence, its slots and calls",
)
CALL = Name(
    "call",
    "hash",
    "two days after its last change",
    "money.ledger",
    "one paid call, for another process to finish: its note, ticket, links, receipt or error",
)
TICKET = Name(
    "ticket", "string", "as long", "money.ledger", "task and call, by upstream, credential and the vendor's own id"
)
CLAIMS = Name(
    "claims",
    "sorted set",
    "two days after its last task's opening",
    "money.ledger",
    "tasks of one key and fingerprint with an undelivered answer, by their opening, µs",
)
IDEMPOTENCY = Name(
    "idempotency", "string", "two days", "money.ledger", "task id, by key id and digest of route and Idempotency-Key"
)
EPOCH = Name("epoch", "string", "for ever", "money.ledger", "the id by which processes notice a store that lost data")
LOST = Name("lost", "string", "until accepted", "money.ledger", "the epoch in which a process missed data, or nothing")
OPEN = Name("open", "sorted set", "until over", "money.ledger", "tasks that may still hold money, by their opening, µs")
ENDED = Name("ended", "sorted set", "until folded", "money.ledger", "ended tasks, by their end, µs")
DOUBTFUL = Name("doubtful", "sorted set", "until folded", "money.ledger", "ended tasks with a presumed call, likewise")
JOURNAL = Name("journal", "stream", "until folded", "money.ledger", "every change of an amount: what, why, whose, when")
CHANGE = Name("change", "string", "a day", "money.ledger", "an operator's change, so that a repetition changes nothing")

RECORDS = Name(
    "records", "hash", "`accounting.history_days` after the day", "history.history", "record id → one request, as JSON"
)
RECORD_ORDER = Name(
    "record-order", "sorted set", "as long as the day's records", "history.history", "the ids of a day's records, by id"
)
USAGE = Name(
    "usage", "hash", "`accounting.usage_days` after the day", "history.history", "a day's sums of requests, images, µ$"
)
CREDITS = Name(
    "credits", "hash", "as long as the day's sums", "history.history", "change id → an operator's correction, as JSON"
)
CHANGES = Name(
    "changes",
    "stream",
    "the last 20,000, for `accounting.usage_days`",
    "history.changes",
    "operators' changes: who, what, how",
)

TARGET = Name(
    "target",
    "hash",
    "29 to 30 days after its last call",
    "health.health",
    "one target: breaker, cool-down, balance, checks",
)
PERMITS = Name(
    "permits",
    "sorted set",
    "29 to 30 days, likewise",
    "health.health",
    "a target's calls under way, by the end of their lease",
)
LATENCY = Name(
    "latency", "hash", "29 to 30 days, likewise", "health.health", "quality and size → ms of a target's last good calls"
)
PRESUMED = Name(
    "presumed",
    "hash",
    "two hours after the last",
    "health.health",
    "five minutes → presumed µ$ of a target's calls",
)
PAUSES = Name(
    "pauses",
    "hash",
    "until the pause is removed",
    "health.pauses",
    "`everything`, `team:NAME` or `upstream:NAME` → begin and end of an operator's pause, µs; an end of 0 is none",
)
DRIFT = Name(
    "drift",
    "hash",
    "90 days after the last",
    "health.drift",
    "upstream, kind, parameter → count, last time and example of a drift",
)

NAMES = (
    PEPPER_CHECK,
    SIGNING_CHECK,
    KEY_INDEX,
    KEY,
    FORMER_KEY,
    OPERATOR_INDEX,
    OPERATOR,
    WRONG_KEYS,
    TASK,
    TASKS_OF,
    CHANGED,
    WEBHOOK,
    WEBHOOKS,
    WEBHOOKS_OF,
    WEBHOOKS_LOST,
    EPOCH,
    LOST,
    LIMITS,
    WINDOW,
    RATE,
    RUNNING,
    LEASES,
    HOLD,
    CALL,
    TICKET,
    CLAIMS,
    IDEMPOTENCY,
    OPEN,
    ENDED,
    DOUBTFUL,
    JOURNAL,
    CHANGE,
    RECORDS,
    RECORD_ORDER,
    USAGE,
    CREDITS,
    CHANGES,
    TARGET,
    PERMITS,
    LATENCY,
    PRESUMED,
    PAUSES,
    DRIFT,
)
