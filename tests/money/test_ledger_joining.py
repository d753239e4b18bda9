"""Who joins which task: one rule for retries and one for an Idempotency-Key, at no cost."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.money.ledger import Leaving, Ledger
from gateway.money.ledger_reader import RetryQuery
from gateway.money.ledger_results import Admitted, InvalidArgument, Joined, LedgerAnswer, Opening, Scope, Settled
from tests.support.ledgers import DAY, MINUTE, SECOND, Clock, Store, make_id, make_opening

pytestmark = pytest.mark.quiet_store

KEY = "a" * 64
OTHER_WORKER = make_id("worker", 2)
ORPHANS = 10 * MINUTE
LEASE = 15 * SECOND
TASK = make_id("task", 1)


def asking(number: int, **more: Any) -> Opening:
    """The same request as every other here, by a script that is run again unless told otherwise."""
    return make_opening(number, **({"orphans": ORPHANS} | more))


def retrying(number: int, **more: Any) -> Opening:
    return asking(number, **({"retry": 1} | more))


async def begin(ledger: Ledger, number: int = 1, **more: Any) -> str:
    """A task that was sent, and its id; its request waits for it."""
    opening = asking(number, **more)
    assert isinstance(await ledger.open(opening), Admitted)
    assert await ledger.mark_sent(opening.task, make_id("call", number), (0,), 10, 1) is LedgerAnswer.HELD
    return opening.task


async def finish(ledger: Ledger, number: int = 1, images: int = 1) -> None:
    """The task's image came, or was refused by the vendor."""
    task, call = make_id("task", number), make_id("call", number)
    if images:
        assert isinstance(await ledger.post(task, call, 10, images), Settled)
    else:
        assert await ledger.nack(task, call) is LedgerAnswer.VOID
    assert await ledger.close(task, 1) is LedgerAnswer.CLOSED


async def test_waited_for_is_not_joined(ledger: Ledger) -> None:
    """As long as its own request waits, a task is nobody else's, however often the other says that it retries."""
    await begin(ledger)
    assert isinstance(await ledger.open(retrying(2)), Admitted)


@pytest.mark.parametrize("retry", [0, 1])
async def test_left_task_is_joined(ledger: Ledger, retry: int) -> None:
    """A running task whose request left is joined, without any room, rate or money being left."""
    for limit in ("requests_minute", "concurrent_requests", "images_day"):
        await ledger.set_limit(make_id("change", len(limit)), Scope(), limit, 1)
    await ledger.set_limit(make_id("change", 1), Scope(), "usd_total", 10)
    task = await begin(ledger)
    await ledger.leave(task, task, "left")
    assert await ledger.open(asking(2, retry=retry)) == Joined(task, is_replay=False)


async def test_one_claimant_at_a_time(ledger: Ledger) -> None:
    """A task that a retry has claimed is not claimed by a second one, until the first leaves too."""
    task = await begin(ledger)
    await ledger.leave(task, task, "left")
    assert await ledger.open(retrying(2)) == Joined(task, is_replay=False)
    assert isinstance(await ledger.open(retrying(3)), Admitted)
    assert await ledger.leave(task, task, "left") is LedgerAnswer.GONE
    assert await ledger.leave(task, make_id("task", 2), "left") is LedgerAnswer.DONE
    assert await ledger.open(retrying(4)) == Joined(task, is_replay=False)


async def test_claim_is_asked_again(ledger: Ledger) -> None:
    """A claim whose reply was lost is answered the same when it is asked again."""
    task = await begin(ledger)
    await ledger.leave(task, task, "left")
    for _ in range(2):
        assert await ledger.open(retrying(2)) == Joined(task, is_replay=False)


async def test_unheard_claim_is_no_claim(ledger: Ledger) -> None:
    """A claimant that was told that Redis is away, and closed what it might have opened, does not block the next."""
    task = await begin(ledger)
    await ledger.leave(task, task, "left")
    assert isinstance(await ledger.open(retrying(2)), Joined)
    await ledger.close(make_id("task", 2), 1)
    assert await ledger.open(retrying(3)) == Joined(task, is_replay=False)


async def test_handed_over_is_nobodys(ledger: Ledger) -> None:
    """An answer that was handed over entirely is not given to another request."""
    task = await begin(ledger)
    await finish(ledger)
    await ledger.leave(task, task, "handed")
    assert isinstance(await ledger.open(retrying(2)), Admitted)


async def test_dead_workers_waiter_is_gone(ledger: Ledger, clock: Clock) -> None:
    """When the worker at which a request waited has died, its task may be joined at another one."""
    await ledger.renew(make_id("worker", 1), 15 * SECOND)
    task = await begin(ledger)
    assert isinstance(await ledger.open(retrying(2, worker=OTHER_WORKER)), Admitted)
    await ledger.leave(make_id("task", 2), make_id("task", 2), "handed")
    clock.now += 15 * SECOND
    assert await ledger.open(retrying(3, worker=OTHER_WORKER)) == Joined(task, is_replay=False)


async def test_dead_workers_unsent_task_is_not_joined(ledger: Ledger, clock: Clock) -> None:
    """What a dead worker had not sent will never be made: its retry begins anew."""
    await ledger.renew(make_id("worker", 1), 15 * SECOND)
    await ledger.open(asking(1))
    clock.now += 15 * SECOND
    assert isinstance(await ledger.open(retrying(2, worker=OTHER_WORKER)), Admitted)


@pytest.mark.parametrize(("retry", "joins"), [(0, False), (1, True)])
async def test_own_timeout_passed(ledger: Ledger, clock: Clock, retry: int, joins: bool) -> None:
    """A retry takes the place of a request whose own time-out has passed, though nobody noticed that it went."""
    await begin(ledger, patience=30 * SECOND)
    clock.now += 30 * SECOND - 1
    assert isinstance(await ledger.open(retrying(2, patience=30 * SECOND)), Admitted)
    clock.now += 1
    assert isinstance(await ledger.open(asking(3, retry=retry)), Joined) == joins


@pytest.mark.parametrize(("images", "retry", "joins"), [(1, 0, True), (1, 1, True), (0, 0, False), (0, 1, False)])
async def test_end_is_joined_where_something_came(ledger: Ledger, images: int, retry: int, joins: bool) -> None:
    """What succeeded is joined after its end; where nothing was accepted the request begins anew."""
    task = await begin(ledger)
    await ledger.leave(task, task, "left")
    await finish(ledger, images=images)
    assert isinstance(await ledger.open(asking(2, retry=retry)), Joined) == joins


@pytest.mark.parametrize(("retry", "joins"), [(0, False), (1, True)])
async def test_failure_is_a_retrys(ledger: Ledger, retry: int, joins: bool) -> None:
    """A task that failed after it was sent is joined, and its failure told, by a retry alone."""
    task = await begin(ledger)
    await ledger.leave(task, task, "left")
    await ledger.presume(task, make_id("call", 1), 1)
    await ledger.close(task, 1)
    assert isinstance(await ledger.open(asking(2, retry=retry)), Joined) == joins


@pytest.mark.parametrize(("after", "retry", "joins"), [(0, 0, True), (1, 0, False), (1, 1, True)])
async def test_orphans_are_found_for_a_while(ledger: Ledger, clock: Clock, after: int, retry: int, joins: bool) -> None:
    """A request that is no retry finds what was left for as long as the operator lets it; a retry finds it later."""
    task = await begin(ledger)
    await ledger.leave(task, task, "left")
    clock.now += ORPHANS - 1 + after
    assert isinstance(await ledger.open(asking(2, retry=retry)), Joined) == joins


async def test_old_end_is_not_joined(ledger: Ledger, clock: Clock) -> None:
    """An end is answered again for a day."""
    for number, more in ((1, {}), (2, {"idempotency": KEY})):
        task = await begin(ledger, number, **more)
        await ledger.leave(task, task, "left")
        await finish(ledger, number)
    clock.now += DAY
    assert isinstance(await ledger.open(retrying(3)), Admitted)
    assert isinstance(await ledger.open(retrying(4, idempotency=KEY)), Admitted)


@pytest.mark.parametrize("other", [{"fingerprint": "e" * 64}, {"key": make_id("key", 2)}, {"idempotency": KEY}])
async def test_other_request_joins_nothing(ledger: Ledger, other: dict[str, str]) -> None:
    """Another request, another key's, or one with an Idempotency-Key never joins an unkeyed task."""
    task = await begin(ledger)
    await ledger.leave(task, task, "left")
    assert isinstance(await ledger.open(retrying(2, **other)), Admitted)


async def test_task_form_is_not_claimed(ledger: Ledger) -> None:
    """A request that was answered with its task is not claimed: it asks by the task's id."""
    task = await begin(ledger, form="task")
    await ledger.leave(task, task, "left")
    assert isinstance(await ledger.open(retrying(2)), Admitted)


@pytest.mark.parametrize("more", [{}, {"idempotency": KEY}])
async def test_joining_alone_opens_nothing(ledger: Ledger, store: Store, more: dict[str, Any]) -> None:
    """A request that may only join finds what was left, and otherwise writes nothing."""
    before = store.read()
    assert await ledger.open(retrying(2, form="join", price=None, **more)) is LedgerAnswer.NOTHING
    assert store.read() == before
    task = await begin(ledger, **more)
    await ledger.leave(task, task, "left")
    assert await ledger.open(retrying(3, form="join", price=None, **more)) == Joined(task, is_replay=False)


async def test_keyed_copies_join(ledger: Ledger, clock: Clock) -> None:
    """Any number of copies with one Idempotency-Key join the running task, and are answered again after its end."""
    task = await begin(ledger, idempotency=KEY)
    for number in (2, 3):
        assert await ledger.open(asking(number, idempotency=KEY)) == Joined(task, is_replay=False)
    await finish(ledger)
    await ledger.leave(task, task, "handed")
    clock.now += DAY - 1
    assert await ledger.open(asking(4, idempotency=KEY)) == Joined(task, is_replay=True)


async def test_keyed_task_is_not_claimed(ledger: Ledger) -> None:
    """A retry without the key does not claim a keyed task."""
    task = await begin(ledger, idempotency=KEY)
    await ledger.leave(task, task, "left")
    assert isinstance(await ledger.open(retrying(2)), Admitted)


async def test_key_is_of_one_request(ledger: Ledger) -> None:
    """An Idempotency-Key with another request is a mismatch, while the first runs and after its end."""
    await begin(ledger, idempotency=KEY)
    other = asking(2, idempotency=KEY, fingerprint="e" * 64)
    assert await ledger.open(other) is LedgerAnswer.MISMATCH
    await finish(ledger)
    assert await ledger.open(other) is LedgerAnswer.MISMATCH


async def test_key_is_free_after_nothing(ledger: Ledger) -> None:
    """When nothing was accepted the key is free for any request; a policy's refusal is answered again."""
    await begin(ledger, idempotency=KEY)
    await finish(ledger, images=0)
    assert isinstance(await ledger.open(asking(2, idempotency=KEY, fingerprint="e" * 64)), Admitted)
    await ledger.close(make_id("task", 2), 1, "policy")
    assert isinstance(await ledger.open(asking(3, idempotency=KEY, fingerprint="e" * 64)), Joined)


async def test_only_unsent_is_canceled(ledger: Ledger) -> None:
    """A cancellation closes what was never sent, and nothing else."""
    task = await begin(ledger)
    assert await ledger.close(task, 1, "cancel") is LedgerAnswer.SENT
    await ledger.open(asking(2, fingerprint="e" * 64))
    assert await ledger.close(make_id("task", 2), 1, "cancel") is LedgerAnswer.CLOSED
    assert (await ledger.look()).spent[0].images_held == 1


async def test_collected_task_still_runs(ledger: Ledger) -> None:
    """A task whose adopter collects its pictures is joined as one that runs, though it is closed."""
    task = await begin(ledger, idempotency=KEY)
    assert await ledger.close(task, 1, "collect") is LedgerAnswer.CLOSED
    assert await ledger.open(asking(2, idempotency=KEY)) == Joined(task, is_replay=False)


async def test_refused_charge_leaves_no_task_open(ledger: Ledger) -> None:
    """A last charge that the ledger refuses, of more images than the call has, does not keep the task from closing."""
    task = await begin(ledger)
    with pytest.raises(InvalidArgument, match="images"):
        await ledger.run_chain(ledger.make_post(task, make_id("call", 1), 10, 9), ledger.make_close(task, 1))
    hold = await ledger.show(task)
    assert hold is not None
    assert (hold.is_open, hold.calls[0].state) == (False, LedgerAnswer.HELD)


async def test_delivered_task_is_not_canceled(ledger: Ledger) -> None:
    """A cancellation that comes when the worker has closed the task, before it stored the end, cancels nothing."""
    task = await begin(ledger)
    await ledger.post(task, make_id("call", 1), 10, 1)
    assert await ledger.close(task, 1) is LedgerAnswer.CLOSED
    assert await ledger.close(task, 1, "cancel") is LedgerAnswer.SENT


async def test_unread_answer_is_a_retrys(ledger: Ledger) -> None:
    """An answer that was handed over and never read is given to a retry, once; a new request is new work."""
    task = await begin(ledger)
    await finish(ledger)
    await ledger.leave(task, task, "handed")
    assert await ledger.leave(task, make_id("task", 9), "unread") is LedgerAnswer.GONE
    assert await ledger.leave(task, task, "unread") is LedgerAnswer.DONE
    assert await ledger.leave(task, task, "unread") is LedgerAnswer.GONE
    assert isinstance(await ledger.open(asking(2)), Admitted)
    assert await ledger.open(retrying(3)) == Joined(task, is_replay=False)
    await ledger.leave(task, make_id("task", 3), "handed")
    assert isinstance(await ledger.open(retrying(4)), Admitted)


async def test_answer_closed_upon_is_a_retrys_for_seconds(ledger: Ledger, clock: Clock) -> None:
    """An answer whose connection was closed right after it is given to a retry that comes within ten seconds."""
    task = await begin(ledger)
    await finish(ledger)
    await ledger.leave(task, task, "handed")
    assert await ledger.leave(task, task, "closed") is LedgerAnswer.DONE
    assert isinstance(await ledger.open(asking(2)), Admitted)
    clock.now += 10 * SECOND - 1
    assert await ledger.open(retrying(3)) == Joined(task, is_replay=False)
    await ledger.leave(task, make_id("task", 3), "handed")
    await ledger.leave(task, make_id("task", 3), "closed")
    clock.now += 10 * SECOND
    assert isinstance(await ledger.open(retrying(4)), Admitted)


async def test_claim_of_a_closed_answer_lasts(ledger: Ledger, clock: Clock) -> None:
    """A retry that claimed within the ten seconds and left without the answer leaves it to its own retry."""
    task = await begin(ledger)
    await finish(ledger)
    await ledger.leave(task, task, "handed")
    await ledger.leave(task, task, "closed")
    assert await ledger.open(retrying(2)) == Joined(task, is_replay=False)
    await ledger.leave(task, make_id("task", 2), "left")
    clock.now += 60 * SECOND
    assert await ledger.open(retrying(3)) == Joined(task, is_replay=False)


@pytest.mark.parametrize("how", ["unread", "closed"])
@pytest.mark.parametrize("more", [{"form": "task"}, {"idempotency": KEY}])
async def test_unread_stays_hidden(ledger: Ledger, more: dict[str, Any], how: Leaving) -> None:
    """A task that no request claims, since it is asked for by its id or its key, is not claimed for being unread."""
    task = await begin(ledger, **more)
    await finish(ledger)
    await ledger.leave(task, task, "handed")
    assert await ledger.leave(task, task, how) is LedgerAnswer.GONE
    assert isinstance(await ledger.open(retrying(2)), Admitted)


def query(**more: Any) -> RetryQuery:
    """A retry of the request that every other here is too, at another worker."""
    asked = {"key": asking(1).key, "fingerprint": asking(1).fingerprint, "worker": OTHER_WORKER, "lease_us": LEASE}
    return RetryQuery(**(asked | more))


async def test_silent_owner_is_doubted_until_its_lease_ends(ledger: Ledger, clock: Clock) -> None:
    """A retry at another worker waits while the one that has the task may be dead; then the task is its own."""
    await ledger.renew(asking(1).worker, LEASE)
    task = await begin(ledger)
    clock.now += SECOND
    since = await ledger.check_first_request(query())
    assert since == clock.now
    clock.now += LEASE - 2 * SECOND
    assert await ledger.check_first_request(query(), since) == since
    clock.now += SECOND
    assert await ledger.check_first_request(query(), since) is None
    assert await ledger.open(retrying(2, worker=OTHER_WORKER)) == Joined(task, is_replay=False)


async def test_sign_of_life_ends_doubt(ledger: Ledger, clock: Clock) -> None:
    """A worker that renews its lease after the retry came lives, and so does who waits there."""
    await ledger.renew(asking(1).worker, LEASE)
    await begin(ledger)
    clock.now += SECOND
    since = await ledger.check_first_request(query())
    assert since == clock.now
    clock.now += SECOND
    await ledger.renew(asking(1).worker, LEASE)
    assert await ledger.check_first_request(query(), since) is None
    assert isinstance(await ledger.open(retrying(2, worker=OTHER_WORKER)), Admitted)


@pytest.mark.parametrize(
    "more",
    [{"worker": asking(1).worker}, {"living": (asking(1).worker,)}, {"fingerprint": "0" * 64}],
    ids=["own", "living", "other request"],
)
async def test_nobody_else_is_doubted(ledger: Ledger, clock: Clock, more: dict[str, Any]) -> None:
    """Neither this worker, nor one that is known to live, nor the owner of another request's task."""
    await ledger.renew(asking(1).worker, LEASE)
    await begin(ledger)
    clock.now += SECOND
    assert await ledger.check_first_request(query()) is not None
    assert await ledger.check_first_request(query(**more)) is None


async def test_left_task_is_in_no_doubt(ledger: Ledger, clock: Clock) -> None:
    """Nor one whose caller's time-out has passed: a retry may claim both at once."""
    await ledger.renew(asking(1).worker, LEASE)
    task = await begin(ledger, patience=2 * SECOND)
    clock.now += SECOND
    assert await ledger.check_first_request(query()) is not None
    clock.now += SECOND
    assert await ledger.check_first_request(query()) is None
    await ledger.leave(task, task, "left")
    assert await ledger.check_first_request(query()) is None
