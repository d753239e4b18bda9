"""A record's own arithmetic: where money, images and the request itself count, and which news it believes."""

from __future__ import annotations

from hypothesis import given

from gateway.history.record import CREDIT, Credit, Record, Sums, UsageLine, describe_hold, record_id, subtract
from gateway.ids import new_id
from gateway.money.ledger_results import HeldCall, Hold, LedgerAnswer
from tests.support.histories import NOON, make_call, make_record, records
from tests.support.ledgers import make_id

KEY = make_id("key", 1)


def test_request_counts_where_it_ended() -> None:
    """Money and images count at each upstream, the request once, where its last picture came from."""
    record = make_record(
        team="design",
        calls=(
            make_call(1, "anyfast-c", images=0, usd=5, state="presumed"),
            make_call(2, "anyfast", images=2, usd=80),
            make_call(3, "apiany", images=0, usd=0, state="void"),
        ),
    )
    model = "gpt-image-2"
    assert record.lines() == {
        UsageLine(KEY, "design", model, "anyfast-c"): Sums(usd=5),
        UsageLine(KEY, "design", model, "anyfast"): Sums(requests=1, images=2, usd=80),
        UsageLine(KEY, "design", model, "apiany"): Sums(),
    }


def test_refusal_counts_nowhere_else() -> None:
    """A request without a call counts at no upstream, and an unknown model at no model."""
    record = make_record(status=404, model="x" * 100, is_model_known=False)
    assert record.lines() == {UsageLine(KEY, "", "", ""): Sums(requests=1, errors=1)}


def test_failure_counts_where_it_was_tried() -> None:
    """A request that brought nothing counts at the last upstream that was called."""
    calls = (make_call(1, "anyfast-c", images=0, usd=0), make_call(2, "anyfast", images=0, usd=0))
    assert make_record(status=502, calls=calls).lines()[UsageLine(KEY, "", "gpt-image-2", "anyfast")] == Sums(
        1, 0, 1, 0
    )


def test_unknown_price_makes_no_sum() -> None:
    """A request with a call of unknown price has no known price, and adds what is known."""
    record = make_record(calls=(make_call(1, usd=None), make_call(2, usd=7)))
    assert record.price_settled is None
    assert record.lines()[UsageLine(KEY, "", "gpt-image-2", "anyfast")].usd == 7


@given(records)
def test_record_survives_its_text(record: Record) -> None:
    """What is stored is what was meant, and says its time."""
    assert Record.model_validate_json(record.to_json()) == record
    assert record.time % 1000 == 0
    assert record_id(record.id) == record.id


@given(records, records)
def test_moves_lead_from_one_to_the_other(one: Record, other: Record) -> None:
    """The sums before, and how they move, are the sums after."""
    moves = subtract(other.lines(), one.lines())
    after = {line: one.lines().get(line, Sums()) + move for line, move in moves.items()}
    assert {line: sums for line, sums in after.items() if sums != Sums()} == {
        line: sums for line, sums in other.lines().items() if sums != Sums()
    }


def test_task_names_its_record() -> None:
    """A task's record has the task's time and can be named without a search."""
    task_id = new_id("task", at=NOON / 1_000_000)
    assert record_id(task_id) == f"rec_{task_id[5:]}"
    assert make_record(id=record_id(task_id)).time == NOON


def test_credit_is_no_upstreams() -> None:
    """A correction moves dollars alone, under a name that no upstream can have."""
    credit = Credit(id=make_id("change", 1), team="design", usd=-3, reason="agreed")
    assert credit.lines() == {UsageLine("", "design", "", CREDIT): Sums(usd=-3)}


def hold_of(*states: LedgerAnswer) -> Hold:
    """A dead worker's task with a call of 7 µ$ in each state."""
    return Hold(
        task=make_id("task", 1),
        key=KEY,
        team="design",
        worker=make_id("worker", 1),
        fence=2,
        state="closed",
        opened=NOON,
        windows=("", "", ""),
        images=3,
        free=0,
        amounts={},
        calls=tuple(
            HeldCall(
                make_id("call", number), state, 7, 7 if state in ("presumed", "posted") else 0, 1, 1, NOON, "presume"
            )
            for number, state in enumerate(states)
        ),
    )


def test_dead_workers_task_is_told() -> None:
    """Of a task whose worker died the record says what it cost, as the ledger knows it."""
    record = describe_hold(hold_of(LedgerAnswer.POSTED, LedgerAnswer.PRESUMED, LedgerAnswer.HELD, LedgerAnswer.VOID))
    assert (record.task, record.key, record.team) == (make_id("task", 1), KEY, "design")
    assert (record.price_settled, record.n_asked, record.n_delivered, record.status) == (14, 3, 1, 500)
    assert record.is_presumed


def test_known_request_outdoes_guesses() -> None:
    """A worker that was only asleep tells more than its heir: its words stand, whoever wrote first, and later bills."""
    thin = describe_hold(hold_of(LedgerAnswer.PRESUMED, LedgerAnswer.POSTED))
    whole = make_record(
        id=thin.id,
        task=thin.task,
        model="dall-e-3",
        calls=(make_call(0, usd=6, images=1, state="posted"), make_call(1, usd=0, images=0, state="held")),
    )
    for merged in (thin.merged(whole), whole.merged(thin)):
        assert (merged.model, merged.request, merged.status) == ("dall-e-3", whole.request, 200)
        assert [(call.usd, call.state, call.upstream) for call in merged.calls] == [
            (6, "posted", "anyfast"),
            (7, "posted", "anyfast"),
        ]
