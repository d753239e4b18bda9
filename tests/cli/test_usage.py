"""`imagegate usage`, `history` and `changes`: an operator reads what was spent, as people and as programs read."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
import structlog
from typer.testing import CliRunner, Result

from gateway.callers.key_store import KeyStore
from gateway.catalogue.document import Accounting
from gateway.cli import main
from gateway.history.changes import Changes
from gateway.history.record import Credit, PassedBy, Record
from tests.conftest import Valkey
from tests.support.histories import Books, make_call, make_record, open_books
from tests.support.ledgers import HOUR, SECOND, make_id
from tests.support.terminal import show_on_terminal

PEPPER = "p" * 64
NOW = time.time_ns() // 1_000_000 * 1000
BEFORE = NOW - HOUR

Run = Callable[..., Result]


@pytest.fixture
def env(valkey: Valkey) -> dict[str, str]:
    return {"GATEWAY_REDIS_URL": valkey.url, "GATEWAY_KEY_PEPPER": PEPPER, "GATEWAY_SIGNING_KEY": "s" * 64}


@pytest.fixture
def run(env: Mapping[str, str]) -> Iterator[Run]:
    """Types a command; its standard output as it is, line ends included."""
    # Gateways of other tests run beside it in threads of this process, and would log into what it prints.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    kept = {name: None for name in os.environ if name.startswith("GATEWAY_")}

    def type_command(*words: str) -> Result:
        return CliRunner().invoke(main.app, list(words), env=kept | dict(env))

    yield type_command
    structlog.reset_defaults()


@pytest.fixture
def made(valkey: Valkey) -> tuple[Record, ...]:
    """Two keys' requests of an hour ago, and a credit."""
    return asyncio.run(_fill(valkey.url))


async def _fill(url: str) -> tuple[Record, ...]:
    async with open_books(url, Accounting(), now=NOW) as books:
        keys = KeyStore(books.redis, PEPPER.encode())
        ana, _ = await keys.create("ana", "design")
        bot, _ = await keys.create("bot")
        records = (
            make_record(
                BEFORE,
                task=make_id("task", 1),
                key=ana.id,
                key_name="ana",
                team="design",
                calls=(make_call(usd=1_500_000, state="presumed"),),
                n_asked=1,
                n_delivered=1,
                sizes_made=("1024x640",),
                end_user="=cmd()",
                strategy="cost",
                rule="thrift",
                passed_by=(PassedBy(target="apiany/main", reason="its balance is below the floor"),),
            ),
            make_record(BEFORE + SECOND, key=bot.id, key_name="bot", status=429, error="insufficient_quota"),
        )
        await _write(books, records)
        credit = Credit(id=make_id("change", 1), key=ana.id, team="design", usd=-500_000, reason="green")
        await books.history.credit(credit, BEFORE)
        return records


async def _write(books: Books, records: tuple[Record, ...]) -> None:
    for record in records:
        await books.history.write(record)


def lines(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


def test_usage_adds_up(run: Run, made: tuple[Record, ...]) -> None:
    """The sums are shown by team or by key, with the key's name, and only of whom was asked for."""
    assert lines(run("usage", "--by", "team", "--since", "2d")) == [
        ["team", "requests", "images", "errors", "usd", "usd_disputed"],
        ["-", "1", "0", "1", "0.000000", "0.000000"],
        ["design", "1", "1", "0", "1.000000", "0.000000"],
    ]
    assert lines(run("usage", "--by", "key,upstream", "--key", "ana", "--since", "2d")) == [
        ["key", "key_name", "upstream", "requests", "images", "errors", "usd", "usd_disputed"],
        [made[0].key, "ana", "(credit)", "0", "0", "0", "-0.500000", "0.000000"],
        [made[0].key, "ana", "anyfast", "1", "1", "0", "1.500000", "0.000000"],
    ]
    assert lines(run("usage", "--by", "team", "--since", "2020-01-01", "--until", "2020-02-01"))[1:] == []


def test_usage_for_programs(run: Run, made: tuple[Record, ...]) -> None:
    """As JSON and as CSV the same sums come in exact dollars."""
    told = json.loads(run("usage", "--by", "team", "--since", "2d", "--json").stdout)
    assert told["total"] == {"requests": 2, "images": 1, "errors": 1, "usd": "1.000000", "usd_disputed": "0.000000"}
    text = run("usage", "--by", "team", "--since", "2d", "--csv").stdout_bytes.decode()
    assert text == (
        "team,requests,images,errors,usd,usd_disputed\r\n,1,0,1,0.000000,0.000000\r\ndesign,1,1,0,1.000000,0.000000\r\n"
    )


def test_history_tells_requests(run: Run, made: tuple[Record, ...]) -> None:
    """Requests are shown newest first, and chosen by what they were."""
    rows = lines(run("history"))
    assert [row[2] for row in rows] == ["key", "bot", "ana"]
    assert rows[1][-1] == "429 insufficient_quota"
    assert rows[2][1] == make_id("task", 1)
    assert rows[2][5:] == ["anyfast", "1024x640", "1/1", "1.500000", "0.0", "200, presumed"]
    for chosen, name in ((("--status", "429"), "bot"), (("--team", "design"), "ana"), (("--most", "1"), "bot")):
        assert [row[2] for row in lines(run("history", *chosen))[1:]] == [name]


def test_disputed_bills_are_listed(run: Run, made: tuple[Record, ...], valkey: Valkey) -> None:
    """A bill that was not believed is in the list of disputes, in the record and in the sums."""
    false = make_record(BEFORE, calls=(make_call(usd=15_000, disputed=10**12),))

    async def write() -> None:
        async with open_books(valkey.url, Accounting(), now=NOW) as books:
            await books.history.write(false)

    asyncio.run(write())
    (row,) = lines(run("history", "--disputed"))[1:]
    assert (row[1], row[-1]) == (false.id, "200, disputed")
    assert "1/1\t0.015000\tposted\t1000000.000000" in run("history", false.id).stdout
    told = json.loads(run("usage", "--since", "2d", "--json").stdout)
    assert told["total"]["usd_disputed"] == "1000000.000000"


def test_history_for_programs(run: Run, made: tuple[Record, ...]) -> None:
    """As JSON the records are a list, as CSV rows in which no cell is a formula."""
    told = json.loads(run("history", "--json").stdout)["data"]
    assert [record["id"] for record in told] == [made[1].id, made[0].id]
    assert told[1]["calls"][0]["usd"] == "1.500000"
    text = run("history", "--csv").stdout_bytes.decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["end_user"] for row in rows] == ["", "'=cmd()"]


def test_one_record_is_whole(run: Run, made: tuple[Record, ...]) -> None:
    """One record is shown by its id with everything in it, its calls included; an unknown id is refused."""
    shown = run("history", made[0].id).stdout
    assert "usd_settled\t1.500000" in shown
    assert "anyfast/main\tdelivered\t1.500\t1/1\t1.500000\tpresumed\t0.000000" in shown
    assert "strategy\tcost\nrule\tthrift\n" in shown
    assert "apiany/main\tits balance is below the floor" in shown
    assert json.loads(run("history", made[0].id, "--json").stdout)["id"] == made[0].id
    unknown = run("history", "rec_nothing")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "There is no record of this id" in unknown.stderr


def test_changes_are_told(run: Run, valkey: Valkey) -> None:
    """Who changed what is shown newest first, with what was before and after."""

    async def change() -> None:
        async with open_books(valkey.url) as books:
            log = Changes(books.redis, Accounting())
            await log.write("cli:ana", "create", "key_1", None, {"name": "x"})
            await log.write("operator:olga", "change", "key_1", {"enabled": True}, {"enabled": False}, "10.0.0.7")

    asyncio.run(change())
    rows = lines(run("changes"))
    assert [row[1:] for row in rows[1:]] == [
        ["operator:olga", "change", "key_1", '{"enabled":true}', '{"enabled":false}', "10.0.0.7"],
        ["cli:ana", "create", "key_1", "-", '{"name":"x"}', "-"],
    ]
    (told,) = json.loads(run("changes", "--actor", "cli:ana", "--json").stdout)["data"]
    assert (told["before"], told["after"]) == (None, {"name": "x"})


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("usage", "--by", "colour"), 2, "'colour' is none of day, key"),
        (("usage", "--json", "--csv"), 2, "choose --json or --csv"),
        (("usage", "--since", "yesterday"), 2, "must be a date, an ISO 8601 instant"),
        (("history", "--key", "nobody"), 1, "No key is named 'nobody'"),
        (("history", "--key", "twin"), 1, "2 keys are named 'twin'"),
    ],
)
def test_refusals_say_what_is_right(run: Run, valkey: Valkey, words: tuple[str, ...], code: int, said: str) -> None:
    """What cannot be done is told in a sentence that says what would be right."""

    async def make_twins() -> None:
        async with open_books(valkey.url) as books:
            for _ in range(2):
                await KeyStore(books.redis, PEPPER.encode()).create("twin")

    asyncio.run(make_twins())
    result = run(*words)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_table_on_a_terminal(env: dict[str, str], made: tuple[Record, ...]) -> None:
    """A person sees a table with money to the right and its total at the foot."""
    text = show_on_terminal(env, "usage", "--by", "team", "--since", "2d")
    total = next(line for line in text.splitlines() if "total" in line)
    assert re.findall(r"[\w.]+", total) == ["total", "2", "1", "1", "1.000000", "0.000000"]
    assert len({line.rindex("000000") for line in text.splitlines() if "000000" in line}) == 1


def test_narrow_terminal_keeps_what_counts(env: dict[str, str], made: tuple[Record, ...]) -> None:
    """Where there is little room details are left out, and an id is whole: it can be copied."""
    text = show_on_terminal(env, "history", "--status", "429")
    rows = [line.split("│")[2].strip() for line in text.splitlines() if line.count("│") > 3]
    assert made[1].id in rows
    assert "status" in text
    assert "seconds" not in text


def test_other_programs_get_everything(run: Run, valkey: Valkey) -> None:
    """A table shows the newest fifty; JSON and CSV hold all, unless less was asked for."""

    async def fill() -> None:
        async with open_books(valkey.url, Accounting(), now=NOW) as books:
            for number in range(60):
                await books.history.write(make_record(BEFORE - number * SECOND))

    asyncio.run(fill())
    assert len(lines(run("history"))) == 51
    assert len(json.loads(run("history", "--json").stdout)["data"]) == 60
    assert len(lines(run("history", "--csv"))) == 61
    assert len(lines(run("history", "--csv", "--most", "3"))) == 4
