"""A gateway that is killed at any point: nothing paid is lost, nothing is bought twice, and every charge is explained.

Judged by the vendors' book, the ledger and the pictures, over a second real process that takes over.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from tests.support.crash_points import Crasher
from tests.support.crash_stage import RETRY, Stage, gone
from tests.support.gateways import OFFICIAL, TASKS, VARIANT
from tests.support.ledgers import is_soak
from tests.support.simulators import wait_until

AT_ONCE = 4


@dataclass(frozen=True)
class Row:
    """A crash and what must come of it.

    `accepted` by the vendor before anybody retries; `ends`: the retry gets the `image`, is told that its outcome is
    `unknown`, or begins `anew`. `fault` is laid on the vendor: the process is killed from outside while that lasts.
    """

    point: str
    model: str
    accepted: int
    ends: str
    fault: dict[str, Any] = field(default_factory=dict)
    edits: bool = False

    def __str__(self) -> str:
        return f"{self.point}, {self.model}{' (edit)' if self.edits else ''}"


HANG = {"kind": "hang", "when": "after"}
SLOW = {"kind": "slow_body", "bytes_per_second": 20, "chunk": 10}

TABLE = [
    Row("before open", OFFICIAL, 0, "anew"),
    # A call without pictures is marked by the step that opens its task, one with pictures later.
    *(Row("opened", model, 0, "anew", edits=True) for model in (OFFICIAL, TASKS)),
    *(Row("opened", model, 0, "unknown") for model in (OFFICIAL, TASKS)),
    *(Row("marked, nothing sent", model, 0, "unknown", edits=True) for model in (OFFICIAL, TASKS)),
    *(Row("body half sent", model, 0, "unknown", edits=True) for model in (OFFICIAL, TASKS)),
    *(Row("none", model, 1, "unknown", fault=HANG) for model in (OFFICIAL, TASKS)),
    *(Row("none", model, 1, "unknown", fault=SLOW) for model in (OFFICIAL, TASKS)),
    *(Row("answered", model, 1, "unknown") for model in (OFFICIAL, VARIANT)),
    Row("ticket not yet stored", TASKS, 1, "unknown"),
    Row("ticket stored", TASKS, 1, "image"),
    Row("success seen", TASKS, 1, "image"),
    Row("links stored", VARIANT, 1, "image", edits=True),
    Row("half downloaded", TASKS, 1, "image"),
    Row("downloaded, not renamed", OFFICIAL, 1, "unknown"),
    Row("downloaded, not renamed", VARIANT, 1, "image", edits=True),
    Row("downloaded, not renamed", TASKS, 1, "image"),
    *(
        Row(point, model, 1, "image")
        for point in ("stored, not posted", "half answered")
        for model in (OFFICIAL, TASKS)
    ),
    *(Row(point, OFFICIAL, 1, "image") for point in ("posted", "closed, not told")),
]


@dataclass(frozen=True)
class Played:
    """What came of a row: the answer of the retry, and where to look for the rest."""

    row: Row
    prompt: str
    key: str
    answer: httpx.Response


def play(stage: Stage, adopter: Crasher, row: Row, name: str, *, is_replica: bool = False) -> Played:
    """One request at a gateway that dies, and its retry at another."""
    prompt = f"{name}: {row}"
    record, secret = stage.new_key()
    fault_key = name if row.fault else ""
    # The folder that it shares with its adopter proves its death; a replica learns of it by the end of the lease, for
    # which the retry waits.
    data, lease_s = (name, 2.0) if is_replica else ("data", 20.0)
    victim = stage.start(row.point, data=data, lease_s=lease_s, keys=fault_key, inherits=False)
    if row.fault:
        stage.simulator.fault(**row.fault, key=f"{'apiany' if row.model == TASKS else 'direct'}{fault_key}")
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(stage.ask, victim, secret, row.model, prompt, edits=row.edits)
        if row.fault:
            wait_until(lambda: stage.bought(prompt), "the submission", 30)
            victim.end()
        gone(victim)
        first = asked.result()
    assert first is None, first.text
    assert len(stage.bought(prompt)) == row.accepted
    answer = stage.ask(adopter, secret, row.model, prompt, edits=row.edits, headers=RETRY)
    assert answer is not None
    return Played(row, prompt, record.id, answer)


def judge(stage: Stage, played: Played) -> None:
    """By the vendors' book, the ledger and the history."""
    row, answer = played.row, played.answer
    bought, spent = stage.bought(played.prompt), stage.settled(played.key)
    if row.ends == "unknown":
        assert (answer.status_code, len(bought)) == (424, row.accepted), answer.text
        assert spent.keys() == {"usd_presumed", "images_presumed"}
        assert spent["images_presumed"] == 1
    else:
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["data"]) == len(bought) == 1
        assert ("x-gateway-joined" in answer.headers) == (row.ends == "image")
        assert spent == {"usd_posted": stage.paid(played.prompt), "images_posted": 1}
    if row.ends == "anew":
        return
    (record,) = stage.settled_records(played.key)
    assert record.calls[0].upstream == row.model.partition("/")[0] + ("-c" if row.model == VARIANT else "")
    assert record.calls[0].outcome == ("delivered" if row.ends == "image" else "lost")
    assert record.price_settled == sum(spent.get(amount, 0) for amount in ("usd_posted", "usd_presumed"))


def play_all(stage: Stage, rows: Sequence[tuple[Row, bool]]) -> None:
    """Several at a time, all told of that went wrong."""
    wrong: list[str] = []

    def told(row: Row, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except Exception:  # noqa: BLE001 (each row is told of)
            wrong.append(f"{row}\n{traceback.format_exc()}\n{stage.log()[-3000:]}")

    with stage.living() as adopter, stage.living(data="replica") as replica, ThreadPoolExecutor(AT_ONCE) as threads:
        plays = []
        for number, (row, is_far) in enumerate(rows):
            other = replica if is_far else adopter
            plays.append(threads.submit(told, row, partial(play, stage, other, row, f"-{number}", is_replica=is_far)))
        for (row, _), done in zip(rows, plays, strict=True):
            if played := done.result():
                told(row, partial(judge, stage, played))
    assert not wrong, "\n".join(wrong)


def test_crash_table_holds(stage: Stage) -> None:
    """Killed at each point, the gateway's adopter delivers what can be, charges it once, and explains the rest."""
    play_all(stage, [(row, False) for row in TABLE * (10 if is_soak() else 1)])
    assert stage.audit().differences == ()


def test_replicas_adopt(stage: Stage) -> None:
    """A replica with a folder of its own does so once the lease has ended; rows as chance has it."""
    rows = random.Random(5).choices(TABLE, k=200 if is_soak() else 4)
    play_all(stage, [(row, True) for row in rows])
    assert stage.audit().differences == ()
