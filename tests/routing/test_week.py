"""The week's costs in `docs/routing.md` are those that the code comes to."""

from pathlib import Path

from bench import week

ROOT = Path(__file__).parents[2]


def test_table_is_what_the_week_costs() -> None:
    """The document's table is the script's, to the cent; with other prices or another order it must be made anew."""
    text = (ROOT / "docs" / "routing.md").read_text(encoding="utf-8")
    assert week.render() in text, "docs/routing.md is old: run `python -m bench.week`"


def test_cost_is_the_least() -> None:
    """No other strategy, request by request, serves the week for less."""
    catalogue, jobs = week.priced_catalogue(), list(week.requests(500))
    totals = {way: week.cost_of(way, catalogue, jobs)[0] for way in ("cost", "priority", "weighted", "latency")}
    assert min(totals.values()) == totals["cost"]
    assert len(set(totals.values())) == 4
