"""A script has what it uses of its folder's shared part, and nothing else."""

from __future__ import annotations

from gateway.store.lua import chain_scripts, join_scripts

LIB = """
local MOST = 1
-- A comment names other.
local function low()
  return MOST
end

local left, right = 1, 2
local function high() -- it is not about other
  return low()
end

local function other()
  return right
end
"""
SCRIPTS = join_scripts({"lib": LIB, "one": "return high()", "two": "return other()", "none": "return 1"})


def definitions(text: str) -> list[str]:
    return [line.split("(")[0] for line in text.splitlines() if line.startswith("local ")]


def test_definitions_come_with_what_they_use() -> None:
    """A definition comes with those that it uses; one that is named by a comment alone is left out."""
    assert definitions(SCRIPTS["one"].text) == ["local MOST = 1", "local function low", "local function high"]
    assert definitions(SCRIPTS["two"].text) == ["local left, right = 1, 2", "local function other"]
    assert definitions(SCRIPTS["none"].text) == []


def test_chain_has_the_definitions_of_all_its_steps() -> None:
    """Steps of one folder share the definitions that any of them uses."""
    text = chain_scripts((SCRIPTS["one"], SCRIPTS["two"])).text
    assert [line for line in definitions(text) if "ARGV" not in line and "all, first" not in line] == [
        *("local MOST = 1", "local function low", "local left, right = 1, 2"),
        *("local function high", "local function other"),
    ]
