"""`imagegate probe`: asks a vendor what its pages leave open, with the operator's own key and money.

Lists what it would ask and what that may cost, asks before it spends, and prints what it learned in words and as
catalogue lines; registered by `cli`. Writes no file, and touches neither the store nor any key of a caller.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import yaml

from gateway.catalogue.catalogue import Catalogue, Target, load
from gateway.cli.probe.answers import Learned, Seen
from gateway.cli.probe.questions import Question, choose, cost_at_most, ends, find_changes, questions_of
from gateway.cli.probe.runner import open_interview
from gateway.cli.store import AsJson
from gateway.dollars import show_usd
from gateway.process.settings import StartRefused, load_settings

_OWN_MONEY = "This is your own spending: no key's limit or budget counts it, and it is in no history."


class CannotProbe(StartRefused):
    """Nothing to probe, or nobody said that it may spend."""


@dataclass(frozen=True, slots=True)
class _Asked:
    question: Question
    seen: Seen
    learned: Learned


def probe(
    name: Annotated[str, typer.Argument(metavar="UPSTREAM", help="An upstream, or UPSTREAM/CREDENTIAL.")],
    only: Annotated[
        list[str] | None, typer.Option(metavar="QUESTION", help="Only this question; repeatable.", show_default=False)
    ] = None,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="List the questions and their cost; ask none.")] = False,
    is_agreed: Annotated[bool, typer.Option("--yes", help="Spend without asking first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a vendor what its pages leave open, by a few cheap calls.

    It lists its questions and what they may cost, and asks before it spends. No key's limit counts that money.

    \b
    imagegate probe UPSTREAM --dry-run
    imagegate probe UPSTREAM/CREDENTIAL --only plain --only n
    """
    env = dict(os.environ)
    settings = load_settings(env)
    catalogue = load(settings.config, env)
    target = _find_target(catalogue, name)
    try:
        questions = choose(questions_of(target), only or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--only") from error
    if is_dry_run and as_json:
        _print_json(target, questions, [], "")
        return
    # Where JSON is wanted, people still read what they agree to.
    _list(questions, target, is_aside=as_json)
    if is_dry_run:
        return
    if not is_agreed and not all(one.is_free for one in questions):
        _agree(target)
    asked = asyncio.run(_ask_all(catalogue, target, questions, is_told=not as_json))
    lines = write_lines(target, [one.learned for one in asked])
    if as_json:
        _print_json(target, questions, asked, lines)
    else:
        _print_end(target, questions, asked, lines)
    if len(asked) < len(questions):
        raise CannotProbe(f"Not asked, since nothing could be learned after that: {_name_left(questions, asked)}.")


def _find_target(catalogue: Catalogue, name: str) -> Target:
    """The credential of this label, or the first of this upstream that has a key."""
    found = next((one for one in catalogue.targets if name in (one.label, one.upstream)), None)
    if found is not None:
        return found
    if name in catalogue.off:
        raise CannotProbe(f"{name} is off: {catalogue.off[name]}.")
    names = ", ".join(catalogue.document.upstreams)
    raise CannotProbe(f"There is no upstream {name!r} with a key; the catalogue has {names}.")


def _list(questions: tuple[Question, ...], target: Target, *, is_aside: bool) -> None:
    typer.echo(f"{target.label}, {target.config.model} at {target.config.base_url}", err=is_aside)
    for one in questions:
        typer.echo(f"  {one.name:<13} {_show_cost(one, target):<20} {one.asks}", err=is_aside)
    typer.echo(f"All together {_show_total(questions, target)}.\n{_OWN_MONEY}", err=is_aside)


def _show_cost(question: Question, target: Target) -> str:
    if question.is_free:
        return "free"
    cost = cost_at_most(question, target)
    return "cost unknown" if cost is None else f"at most ${show_usd(cost)}"


def _show_total(questions: tuple[Question, ...], target: Target) -> str:
    costs = [cost_at_most(one, target) for one in questions]
    paid = sum(not one.is_free for one in questions)
    if None in costs:
        return f"{paid} paid calls, whose cost is unknown: the catalogue has no price for them"
    total = show_usd(sum(one for one in costs if one is not None))
    return f"{paid} paid calls, ${total} at most by the catalogue's prices"


def _agree(target: Target) -> None:
    if not sys.stdin.isatty():
        raise CannotProbe("Nothing was asked: this spends money. In a script, agree to that with --yes.")
    if not typer.confirm(f"Spend this with {target.label}?", err=True):
        raise CannotProbe("Nothing was asked.")


async def _ask_all(
    catalogue: Catalogue, target: Target, questions: tuple[Question, ...], *, is_told: bool
) -> list[_Asked]:
    """Each question once, until one ends in a way that promises no better for the next."""
    asked: list[_Asked] = []
    with tempfile.TemporaryDirectory(prefix="imagegate-probe-") as folder:
        async with open_interview(target, catalogue.limits, Path(folder)) as interview:
            for question in questions:
                seen = await interview.ask(question)
                asked.append(_Asked(question, seen, question.read(seen, target)))
                if is_told:
                    _tell(asked[-1])
                if ends(question, seen, asked[-1].learned):
                    break
    return asked


def _tell(one: _Asked) -> None:
    typer.echo(f"\n{one.question.name}: {one.question.asks} {one.learned.verdict}")
    for words in one.learned.words:
        typer.echo(f"  {words}")


def write_lines(target: Target, learned: list[Learned]) -> str:
    """The upstream's entry as it would be with what was learned; empty where the catalogue says all of it already."""
    changes = find_changes(learned, target.profile)
    prices = {name: value for one in learned for name, value in one.prices.items()}
    if not changes and not prices:
        return ""
    entry = target.config.model_dump(mode="json", exclude_unset=True)
    names = [credential.name for credential in target.config.credentials]
    credential = entry["credentials"][names.index(target.credential)]
    if changes:
        credential["capabilities"] = credential.get("capabilities", {}) | changes
    if prices:
        priced = credential if "prices" in credential else entry
        priced["prices"] = priced.get("prices", {}) | prices
    return yaml.safe_dump({"upstreams": {target.upstream: entry}}, sort_keys=False, default_flow_style=None, width=100)


def _print_end(target: Target, questions: tuple[Question, ...], asked: list[_Asked], lines: str) -> None:
    if lines:
        typer.echo(
            f"\nFor the catalogue, in the place of `{target.upstream}`; then `imagegate check`:\n\n{lines}", nl=False
        )
    elif len(asked) == len(questions):
        typer.echo("\nThe catalogue says all of this already.")


def _name_left(questions: tuple[Question, ...], asked: list[_Asked]) -> str:
    return ", ".join(one.name for one in questions[len(asked) :])


def _print_json(target: Target, questions: tuple[Question, ...], asked: list[_Asked], lines: str) -> None:
    answers = {one.question.name: one for one in asked}
    told: dict[str, Any] = {
        "target": target.label,
        "model": target.config.model,
        "questions": [_describe(one, target, answers.get(one.name)) for one in questions],
        "catalogue": lines or None,
    }
    typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())


def _describe(question: Question, target: Target, asked: _Asked | None) -> dict[str, Any]:
    cost = cost_at_most(question, target)
    told: dict[str, Any] = {
        "name": question.name,
        "asks": question.asks,
        "cost_usd_at_most": None if cost is None else show_usd(cost),
        "verdict": None,
    }
    if asked is None:
        return told
    learned = asked.learned
    return told | {
        "verdict": learned.verdict,
        "words": list(learned.words),
        "capabilities": dict(learned.capabilities),
        "seconds": round(asked.seen.seconds, 1),
    }
