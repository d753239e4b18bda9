"""What a script does not understand it refuses before its first write (L11)."""

from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from gateway.money.ledger import Ledger
from gateway.money.ledger_results import AMOUNTS, Admitted, InvalidArgument, LedgerAnswer, Scope
from gateway.store.client import CommandQueue
from gateway.store.lua import join_scripts, read_sources
from gateway.store.windows import Calendar
from tests.conftest import Valkey
from tests.support.ledgers import FINGERPRINT, SECOND, ZONE, Clock, Store, make_id, make_opening

pytestmark = pytest.mark.quiet_store

BAD = ("0", "-1", str(2**53), "", "NaN", "1e3", " 1", "1.5", "01", "-0", "0x1", "9" * 400, "\n", "é")
NOW = 1_790_000_000 * SECOND
TASK, CALL = make_id("task", 1), make_id("call", 1)
KEY, CHANGE, WORKER = make_id("key", 1), make_id("change", 1), make_id("worker", 1)
EPOCH = make_id("epoch", 1)
WINDOWS = Calendar(ZONE).name_windows(NOW).arguments()
SPANS = [f"{span}{part}" for span in ("day", "week", "month") for part in ("", "_start", "_end")]
MEMORY = [("epoch", EPOCH, {""}), ("memory_worker", WORKER, {""}), ("beat", str(NOW), {""})]
ANY_TEXT = set(BAD)
LABELS = {"0", "-1", str(2**53), "", "NaN", "1e3", "1.5", "01", "-0", "0x1", "é"}

# Every argument by name with a good value, and the bad values that are good ones for it.
ARGUMENTS: dict[str, list[tuple[str, str, set[str]]]] = {
    "open": [
        ("task", make_id("task", 2), set()),
        ("key", KEY, set()),
        ("team", "design", LABELS),
        ("idempotency", "a" * 64, {""}),
        ("fingerprint", FINGERPRINT, set()),
        ("retry", "1", {"0"}),
        ("price", "10", {"0", ""}),
        ("images", "2", set()),
        ("worker", WORKER, set()),
        ("form", "answer", set()),
        ("patience", "1000000", {"0"}),
        ("orphans", "1000000", {"0"}),
        ("keep", "1000000", {"0"}),
        *MEMORY,
        *((name, value, set()) for name, value in zip(SPANS, WINDOWS, strict=True)),
    ],
    "raise": [("task", TASK, set()), ("price", "20", {"0", ""}), ("fence", "1", set()), *MEMORY],
    "mark_sent": [
        ("task", TASK, set()),
        ("call", make_id("call", 2), set()),
        ("slots", "1", {"0"}),
        ("price", "10", {"0", ""}),
        ("fence", "1", set()),
        ("policy", "hold", set()),
        ("note", "{}", {""}),
        *MEMORY,
    ],
    "ticket": [
        ("task", TASK, set()),
        ("call", CALL, set()),
        ("upstream", "apiany", LABELS - {""}),
        ("credential", "main", LABELS - {""}),
        ("ticket", "task-1", ANY_TEXT - {""}),
        ("path", "/v1/tasks/1", {""}),
    ],
    "keep": [
        ("task", TASK, set()),
        ("call", CALL, set()),
        ("what", "receipt", set()),
        ("text", "{}", set()),
        ("former", "", {""}),
    ],
    "calls": [("calls", CALL, set())],
    "nack": [("task", TASK, set()), ("call", CALL, set())],
    "post": [("task", TASK, set()), ("call", CALL, set()), ("usd", "10", {"0"}), ("images", "1", {"0"})],
    "presume": [("task", TASK, set()), ("call", CALL, set()), ("fence", "1", set())],
    "close": [("task", TASK, set()), ("fence", "1", set()), ("how", "cancel", {""})],
    "end_wait": [("task", TASK, set()), ("waiter", TASK, set()), ("how", "handed", set())],
    "retry_wait": [
        ("key", KEY, set()),
        ("fingerprint", FINGERPRINT, set()),
        ("worker", WORKER, set()),
        ("lease", "15000000", set()),
        ("since", "1", {"0"}),
        ("living", make_id("worker", 2), {""}),
    ],
    "adopt": [("task", TASK, set()), ("worker", make_id("worker", 2), set()), ("fence", "1", set())],
    "renew": [("worker", WORKER, set()), ("lease", "15000000", set()), *MEMORY, ("first", EPOCH, {""})],
    "check": MEMORY,
    "mark_lost": [("epoch", EPOCH, {""})],
    "retire": [("workers", WORKER, set())],
    "accept": [("epoch", make_id("epoch", 2), set())],
    "adjust": [
        ("change", CHANGE, set()),
        ("key", KEY, {""}),
        ("team", "design", LABELS),
        *((name, value, set()) for name, value in zip(SPANS, WINDOWS, strict=True)),
        ("usd", "-10", {"-1"}),
        ("reason", "agreed", LABELS - {""} | {"9" * 400}),
    ],
    "set_limit": [
        ("change", CHANGE, set()),
        ("key", KEY, {""}),
        ("team", "", {""}),
        ("limit", "usd_total", set()),
        ("value", "10", {"0", ""}),
    ],
    "look": [
        ("key", KEY, {""}),
        ("team", "design", LABELS),
        *((name, value, set()) for name, value in zip(SPANS, WINDOWS, strict=True)),
    ],
    "limits": [("key", "", {""}), ("team", "design", LABELS)],
    "holds": [("which", "overdue", set()), ("worker", WORKER, set()), ("before", "1", set()), ("most", "1", set())],
    "show": [("tasks", TASK, set())],
    "recount": [
        ("repair", "1", {"0"}),
        ("first", "", {""}),
        ("last", "1-1", {""}),
        ("buckets", "1", set()),
        ("scopes", "1", set()),
        ("scope", f"key:{KEY}", set()),
        ("window", "2026-11", set()),
        *((name, "7", {"0", "-1"}) for name in AMOUNTS),
        ("running", "team:design", set()),
    ],
    "reindex": [("repair", "1", {"0"}), ("task", TASK, set())],
    "fold": [(name, "1", set()) for name in ("keep_ended", "keep_doubtful", "keep_journal", "most")],
}
SCRIPTS = join_scripts(read_sources("ledger"))


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
async def command_queue(valkey: Valkey) -> AsyncIterator[CommandQueue]:
    """Runs scripts with arguments that the ledger itself would never send."""
    made = CommandQueue(valkey.url)
    yield made
    await made.aclose()


def test_every_script_is_tried() -> None:
    """A new script is tried with bad arguments too."""
    assert ARGUMENTS.keys() == SCRIPTS.keys()


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
async def test_bad_argument_writes_nothing(
    name: str, ledger: Ledger, command_queue: CommandQueue, store: Store
) -> None:
    """Each bad value in each place is refused by that argument's name, and what was stored stays as it was."""
    assert isinstance(await ledger.open(make_opening(1, images=2)), Admitted)
    assert await ledger.mark_sent(TASK, CALL, [0], 10, 1) is LedgerAnswer.HELD
    await command_queue.run(SCRIPTS["renew"], str(NOW), WORKER, "15000000", "", "", "", EPOCH)
    good = [str(NOW), *(value for _, value, _ in ARGUMENTS[name])]
    before = store.read()
    for place, (argument, _, allowed) in enumerate([("now", "", {""}), *ARGUMENTS[name]]):
        for bad in BAD:
            if bad in allowed:
                continue
            with pytest.raises(ResponseError, match="INVALID "):
                await command_queue.run(SCRIPTS[name], *good[:place], bad, *good[place + 1 :])
            assert store.read() == before, (argument, bad)
    for length in range(len(good)):
        with pytest.raises(ResponseError, match="INVALID "):
            await command_queue.run(SCRIPTS[name], *good[:length])
    assert store.read() == before
    assert (await command_queue.run(SCRIPTS[name], *good))[0] not in {"unknown", "fenced", "conflict", "lost"}


@pytest.mark.parametrize("slots", ["1,0", "0,0", "2", "0,", ",0", "0 1", "0,1,2", "0;1"])
async def test_odd_slots_are_refused(slots: str, ledger: Ledger, command_queue: CommandQueue, store: Store) -> None:
    """Slots are named once, in order, and are the task's own."""
    await ledger.open(make_opening(1, images=2))
    before = store.read()
    with pytest.raises(ResponseError, match="INVALID slots"):
        await command_queue.run(SCRIPTS["mark_sent"], str(NOW), TASK, CALL, slots, "10", "1", "presume", "", "", "", "")
    assert store.read() == before


async def test_more_images_than_slots_refused(ledger: Ledger, store: Store) -> None:
    """A call cannot have brought more images than it was sent for."""
    await ledger.open(make_opening(1, images=2))
    await ledger.mark_sent(TASK, CALL, [0], 10, 1)
    before = store.read()
    with pytest.raises(InvalidArgument, match="images"):
        await ledger.post(TASK, CALL, 10, 2)
    assert store.read() == before


async def test_rate_of_none_is_refused(ledger: Ledger) -> None:
    """A rate has no end when nothing is let through; other limits may be nothing."""
    for name in ("requests_minute", "images_minute"):
        with pytest.raises(InvalidArgument, match="value"):
            await ledger.set_limit(CHANGE, Scope(), name, 0)
    assert await ledger.set_limit(CHANGE, Scope(), "usd_total", 0) is LedgerAnswer.DONE


async def test_flushed_scripts_run_again(command_queue: CommandQueue, store: Store) -> None:
    """A server that has forgotten every script is taught them in passing."""
    for _ in range(2):
        assert (await command_queue.run(SCRIPTS["renew"], "", WORKER, "15000000", "", "", "", ""))[0] == "renewed"
        store.command("SCRIPT", "FLUSH")
