"""Rows of values in which every pair of values of any two columns stands together at least once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

Pair = tuple[str, int, str, int]


def pairwise(columns: Mapping[str, Sequence[Any]], rows: int, seed: int) -> list[dict[str, Any]]:
    """So many rows; each is the one of 50 drawn that has the most new pairs. Fails where they do not suffice."""
    dice, names = Random(seed), list(columns)
    missing: set[Pair] = {
        (one, i, two, j)
        for one, two in itertools.combinations(names, 2)
        for i in range(len(columns[one]))
        for j in range(len(columns[two]))
    }
    found: list[dict[str, Any]] = []
    for _ in range(rows):
        drawn = [{name: dice.randrange(len(columns[name])) for name in names} for _ in range(50)]
        best = max(drawn, key=lambda row: len(_pairs(row) & missing))
        missing -= _pairs(best)
        found.append({name: columns[name][index] for name, index in best.items()})
    assert not missing, f"{len(missing)} pairs never stand together; ask for more rows"
    return found


def _pairs(row: Mapping[str, int]) -> set[Pair]:
    return {(one, row[one], two, row[two]) for one, two in itertools.combinations(row, 2)}
