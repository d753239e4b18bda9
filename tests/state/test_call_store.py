"""What other processes know of a paid call: written with its mark, filled by evidence, first come and standing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from gateway.catalogue.pricing import Prices
from gateway.jobs.job import FoundImage, Ticket, TokenUsage, UpstreamAnswer
from gateway.money.ledger import Ledger
from gateway.money.ledger_results import LedgerAnswer
from gateway.pictures.spool import Blob
from gateway.state.call_store import Binding, Bound, CallNote, CallStore, Link, Links, Receipt, encode_note
from gateway.state.task_store import TaskImage
from gateway.store.client import CommandQueue
from tests.conftest import Valkey
from tests.support.ledgers import Store, make_id, make_opening

pytestmark = pytest.mark.quiet_store

TASK, CALL, OTHER_CALL = make_id("task", 1), make_id("call", 1), make_id("call", 2)
NOTE = CallNote(
    upstream="apiany", credential="main", slots=(0,), size="1024x640", prices=Prices(per_image="0.03"), given=Decimal(7)
)
TICKET = Ticket("ticket-1", "/v1/tasks/ticket-1")


@pytest.fixture
async def calls(valkey: Valkey) -> AsyncIterator[CallStore]:
    command_queue = CommandQueue(valkey.url, deadline_s=20)
    yield CallStore(command_queue)
    await command_queue.aclose()


@pytest.fixture
async def marked(ledger: Ledger) -> Ledger:
    """A ledger with a task of two images, of which each has its call."""
    await ledger.open(make_opening(1, images=2))
    assert await ledger.mark_sent(TASK, CALL, [0], 10, 1, note=encode_note(NOTE)) is LedgerAnswer.HELD
    assert await ledger.mark_sent(TASK, OTHER_CALL, [1], 10, 1, note=encode_note(NOTE)) is LedgerAnswer.HELD
    return ledger


async def test_call_without_a_note_is_known(ledger: Ledger, calls: CallStore) -> None:
    """Evidence of a call that was marked without a note is read all the same; a call without either is none."""
    await ledger.open(make_opening(1, images=2))
    for call, slot in ((CALL, 0), (OTHER_CALL, 1)):
        assert await ledger.mark_sent(TASK, call, [slot], 10, 1) is LedgerAnswer.HELD
    assert (await calls.bind(TASK, CALL, "apiany", "main", TICKET)).binding is Binding.BOUND
    found = await calls.read([OTHER_CALL, CALL])
    assert {name: (one.note, one.ticket) for name, one in found.items()} == {CALL: (None, TICKET)}


def make_receipt(artifact: str, prompt: str | None = None) -> Receipt:
    made = TaskImage(
        slot=0,
        artifact=artifact,
        format="png",
        width=1,
        height=1,
        bytes=1,
        created=1,
        expires=2,
        upstream="apiany",
        usd=30_000,
        revised_prompt=prompt,
    )
    return Receipt(usd=30_000, images=(made,))


async def test_note_comes_with_the_mark(marked: Ledger, calls: CallStore, store: Store) -> None:
    """What finishes a call stands in Redis as soon as it may be sent, and goes by itself."""
    found = await calls.read([CALL, make_id("call", 9)])
    assert found.keys() == {CALL}
    assert (found[CALL].task, found[CALL].note, found[CALL].is_collectable) == (TASK, NOTE, False)
    assert 86_400 < int(store.command("TTL", f"{{igw}}:call:{CALL}")) <= 2 * 86_400


async def test_refused_mark_leaves_no_note(marked: Ledger, calls: CallStore) -> None:
    """A call that may not be sent is not written down."""
    third = make_id("call", 3)
    assert await marked.mark_sent(TASK, third, [0], 10, 1, note=encode_note(NOTE)) is LedgerAnswer.TAKEN
    assert await calls.read([third]) == {}


async def test_ticket_is_bound_once(marked: Ledger, calls: CallStore) -> None:
    """A call keeps its first ticket, however often and by whomever it is told of that one or another."""
    for _ in range(2):
        assert await calls.bind(TASK, CALL, "apiany", "main", TICKET) == Bound(Binding.BOUND)
    found = await calls.bind(TASK, CALL, "apiany", "main", Ticket("ticket-2", ""))
    assert found == Bound(Binding.OTHER, ("ticket-1",))
    assert (await calls.read([CALL]))[CALL].ticket == TICKET


async def test_ticket_is_one_calls(marked: Ledger, calls: CallStore) -> None:
    """A vendor's id that another call has is refused; the same id of another credential is another ticket."""
    await calls.bind(TASK, CALL, "apiany", "main", TICKET)
    found = await calls.bind(TASK, OTHER_CALL, "apiany", "main", TICKET)
    assert found == Bound(Binding.TAKEN, (TASK, CALL))
    assert (await calls.read([OTHER_CALL]))[OTHER_CALL].ticket is None
    assert await calls.bind(TASK, OTHER_CALL, "apiany", "spare", TICKET) == Bound(Binding.BOUND)


@pytest.mark.parametrize(
    "ticket",
    ["t" * 200, "t" * 201, "t" * 70_000, "a b\n\x00c", " x ", "\u2603" * 90, "sha1:x"],
    ids=lambda one: repr(one[:8]),
)
async def test_any_ticket_is_kept(marked: Ledger, calls: CallStore, ticket: str) -> None:
    """Whatever a vendor calls a paid task, and however long, its id is stored, and belongs to one call."""
    kept = Ticket(ticket, f"/v1/tasks/{'%41' * len(ticket)}")
    assert await calls.bind(TASK, CALL, "apiany", "main", kept) == Bound(Binding.BOUND)
    assert (await calls.read([CALL]))[CALL].ticket == kept
    assert await calls.bind(TASK, OTHER_CALL, "apiany", "main", kept) == Bound(Binding.TAKEN, (TASK, CALL))


async def test_ticket_of_no_call_is_refused(calls: CallStore, store: Store) -> None:
    """A ticket for a call that was never marked leaves nothing behind."""
    assert await calls.bind(TASK, CALL, "apiany", "main", TICKET) == Bound(Binding.UNKNOWN)
    assert store.read() == {}


async def test_first_receipt_stands(marked: Ledger, calls: CallStore) -> None:
    """Of two processes that brought the same pictures the first one's are handed out, unless they are not there."""
    first, second, third = (make_receipt(f"img_{number}.png") for number in range(3))
    for _ in range(2):
        assert await calls.keep_receipt(TASK, CALL, first) == first
    assert await calls.keep_receipt(TASK, CALL, second) == first
    assert await calls.keep_receipt(TASK, CALL, second, first) == second
    assert await calls.keep_receipt(TASK, CALL, third, first) == second
    assert (await calls.read([CALL]))[CALL].receipt == second


async def test_prompts_are_not_kept(marked: Ledger, calls: CallStore, valkey: Valkey, store: Store) -> None:
    """A revised prompt is kept only where prompts may be."""
    links = Links(images=(Link(url="https://a.example/1", revised_prompt="a secret cat"),))
    await calls.keep_links(TASK, CALL, links)
    await calls.keep_receipt(TASK, CALL, make_receipt("img_1.png", "a secret cat"))
    assert "secret" not in str(store.read())
    command_queue = CommandQueue(valkey.url, deadline_s=20)
    keeping = CallStore(command_queue, keeps_prompts=True)
    await keeping.keep_links(TASK, OTHER_CALL, links)
    assert (await keeping.read([OTHER_CALL]))[OTHER_CALL].links == links
    await command_queue.aclose()


async def test_error_is_kept(marked: Ledger, calls: CallStore) -> None:
    """Why a call brought nothing is told by whoever ends its task."""
    await calls.keep_error(TASK, CALL, {"kind": "UpstreamFailed", "message": "no"})
    assert (await calls.read([CALL]))[CALL].error == {"kind": "UpstreamFailed", "message": "no"}


def test_only_links_are_links() -> None:
    """An answer that brought bytes cannot be collected again; one of links can, with all that it told."""
    usage = TokenUsage(1, 2, 3)
    answer = UpstreamAnswer((FoundImage(url="https://a.example/1"),), usage, Decimal("1.5"))
    links = Links.of(answer)
    assert links
    assert Links.model_validate_json(links.model_dump_json(exclude_defaults=True)).to_answer() == answer
    blob = Blob(1, data=b"1")
    assert Links.of(UpstreamAnswer((FoundImage(blob=blob), FoundImage(url="https://a.example/1")))) is None
