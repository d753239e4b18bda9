"""`imagegate usage`: requests, images and dollars of whole days, from the store itself, with or without a gateway."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from gateway.cli import options
from gateway.cli.display import Column, print_csv, print_json, print_rows, show_cell
from gateway.cli.store import AsJson, DataDir, OpenedStore, remark_on_team, with_store
from gateway.dollars import show_usd
from gateway.history.export import SUM_COLUMNS
from gateway.history.usage import DIMENSIONS, Dimension, Only
from gateway.operations.usage import SINCE, SummedUsage, sum_usage


def usage(  # noqa: PLR0913 (each option is a parameter)
    by: Annotated[list[str] | None, typer.Option(help="Group by this; repeat it for more.")] = None,
    since: options.Since = SINCE,
    until: options.Until = None,
    key: options.OnlyKey = None,
    team: options.OnlyTeam = None,
    model: options.OnlyModel = None,
    upstream: options.OnlyUpstream = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: options.AsCsv = False,
) -> None:
    """Show the sums of whole days: 7d is today and the six days before.

    \b
    imagegate usage --by team
    imagegate usage --by day --by key --since 2026-11-01 --csv > november.csv
    """
    dimensions = _read_dimensions(by or ["day"])
    options.check_format(as_json=as_json, as_csv=as_csv)

    async def read(store: OpenedStore) -> SummedUsage:
        await remark_on_team(store, team)
        key_id = None if key is None else await store.keys.find_id(key)
        only = Only(key=key_id, team=team, model=model, upstream=upstream)
        return await sum_usage(store, since, until, dimensions, only)

    found = with_store(data_dir, read)
    if as_json:
        print_json(found.answer(), exclude_none=True)
    elif as_csv:
        print_csv(found.columns, found.rows)
    else:
        _print_table(found)


def _print_table(found: SummedUsage) -> None:
    sums = found.report.total
    total = [*("" for _ in found.columns[: -len(SUM_COLUMNS)])]
    if total:
        total[0] = "total"
    total += [str(sums.requests), str(sums.images), str(sums.errors), show_usd(sums.usd), show_usd(sums.disputed)]
    rows = [[show_cell(cell) for cell in row.values()] for row in found.rows]
    print_rows([Column(name, name in SUM_COLUMNS) for name in found.columns], rows, total)


def _read_dimensions(words: list[str]) -> tuple[Dimension, ...]:
    chosen = list(dict.fromkeys(part for word in words for part in word.split(",")))
    for word in chosen:
        if word not in DIMENSIONS:
            raise typer.BadParameter(f"{word!r} is none of {', '.join(DIMENSIONS)}", param_hint="--by")
    return cast(tuple[Dimension, ...], tuple(chosen))
