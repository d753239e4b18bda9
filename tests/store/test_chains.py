"""A chain runs several scripts as one: in order, each with its own arguments, until one does not answer as wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from gateway.store.client import Command, CommandQueue, StoreUnavailable
from gateway.store.lua import Script, chain_scripts, join_scripts
from tests.conftest import Valkey
from tests.support.ledgers import Store

pytestmark = pytest.mark.quiet_store

LIB = """
local seen = 0
local function count() seen = seen + 1 return string.format('%.0f', seen) end
local function second() return ARGV[2] end
"""
ONE = join_scripts(
    {
        "lib": LIB,
        "echo": "redis.call('RPUSH', '{igw}:ran', ARGV[1]) return {ARGV[1], count()}",
        "second": "if not second() then return {'none'} end return {second()}",
        "fail": "if ARGV[1] == 'table' then redis.call('INCR', '{igw}:ran') end error('INVALID thing', 0)",
        "full": "error({err = 'OOM command not allowed'})",
    }
)
OTHER = join_scripts({"lib": "local count = 7", "echo": "return {ARGV[1], string.format('%.0f', count)}"})


def command(name: str, *arguments: str, wanted: str = "", scripts: dict[str, Script] = ONE) -> Command[list[str]]:
    return Command(scripts[name], arguments, list, wanted)


@pytest.fixture
async def command_queue(valkey: Valkey) -> AsyncIterator[CommandQueue]:
    made = CommandQueue(valkey.url)
    yield made
    await made.aclose()


def ran(store: Store) -> list[str]:
    found: list[str] = store.command("LRANGE", "{igw}:ran", "0", "-1")
    store.command("DEL", "{igw}:ran")
    return found


async def test_commands_run_in_order(command_queue: CommandQueue, store: Store) -> None:
    """Each command has its own arguments. Those of one folder share their part, those of another have their own."""
    answers = await command_queue.run_chain(
        command("echo", "a"), command("echo", "b", scripts=OTHER), command("second", "x", "y"), command("echo", "c")
    )
    assert answers == [["a", "1"], ["b", "7"], ["y"], ["c", "2"]]
    assert ran(store) == ["a", "c"]


@pytest.mark.parametrize(("wanted", "expected"), [("a", 2), ("b", 1), ("", 2)])
async def test_unwanted_answer_ends_the_chain(
    command_queue: CommandQueue, store: Store, wanted: str, expected: int
) -> None:
    """The next command runs after the wanted answer alone; an empty wish takes any."""
    answers = await command_queue.run_chain(command("echo", "a", wanted=wanted), command("echo", "c"))
    assert len(answers) == len(ran(store)) == expected


@pytest.mark.parametrize("first", [[], ["before"]], ids=["alone", "behind another"])
@pytest.mark.parametrize("wanted", ["a", ""], ids=["wanted", "unwanted"])
@pytest.mark.parametrize(
    ("name", "error", "text"), [("fail", ResponseError, "INVALID thing"), ("full", StoreUnavailable, "OOM")]
)
async def test_failure_is_raised(
    command_queue: CommandQueue,
    store: Store,
    first: list[str],
    wanted: str,
    name: str,
    error: type[Exception],
    text: str,
) -> None:
    """A command that fails raises as it does alone. The next one runs, unless it waits for an answer."""
    before = [command("echo", one) for one in first]
    with pytest.raises(error, match=text):
        await command_queue.run_chain(*before, command(name, wanted=wanted), command("echo", "after"))
    assert ran(store) == [*first, *([] if wanted else ["after"])]


async def test_wrong_type_is_raised(command_queue: CommandQueue, store: Store) -> None:
    """An error of the server's own, in a command of a script, is raised as well."""
    store.command("RPUSH", "{igw}:ran", "list")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await command_queue.run_chain(command("fail", "table", wanted="a"), command("echo", "after"))
    assert ran(store) == ["list"]


async def test_full_store_counts_before_a_refusal(command_queue: CommandQueue) -> None:
    """A chain of which the store refused one command, and had no room for another, can be repeated as a whole."""
    with pytest.raises(StoreUnavailable, match="OOM"):
        await command_queue.run_chain(command("fail"), command("full"))


async def test_lost_script_is_sent_again(command_queue: CommandQueue, store: Store) -> None:
    """A server that has forgotten a chain's text gets it again."""
    for _ in range(2):
        assert await command_queue.run_chain(command("echo", "a"), command("echo", "b")) == [["a", "1"], ["b", "2"]]
        store.command("SCRIPT", "FLUSH")
    assert ran(store) == ["a", "b"] * 2


def test_chain_is_joined_once() -> None:
    """Equal chains are one script, and another order is another."""
    one, other = ONE["echo"], ONE["second"]
    assert chain_scripts((one, other)) is chain_scripts((one, other))
    assert chain_scripts((one, other)).digest != chain_scripts((other, one)).digest
