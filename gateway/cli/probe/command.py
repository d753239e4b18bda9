"""`imagegate probe`: tests what a vendor's documentation leaves open, with the operator's own key and money.

It lists its questions and their cost, and prints the answers as words and as catalogue lines. It asks before it spends,
except with `--yes`. It leaves no file, and uses neither the store nor a caller's key.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import yaml

from gateway.catalogue.catalogue import Catalogue, Target, load
from gateway.catalogue.document import Limits
from gateway.catalogue.mask import make_mask
from gateway.cli.probe.answers import Learned, Seen
from gateway.cli.probe.questions import Question, choose, cost_at_most, ends, find_changes, questions_of
from gateway.cli.probe.runner import open_probe
from gateway.cli.store import AsJson
from gateway.dollars import show_usd
from gateway.net.outside_text import Mask
from gateway.process.settings import StartRefused, load_settings

_MOST_WORDS = 1500
"""Characters of one line about an answer, which may quote the vendor."""

_OWN_MONEY = "This is your own money: it counts against no key's limit or budget, and no history records it."


class CannotProbe(StartRefused):
    """There is nothing to probe or no consent to spend, or an answer made further questions useless."""


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
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the questions and their cost; send none.")
    ] = False,
    is_agreed: Annotated[bool, typer.Option("--yes", help="Spend without a question first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Test a credential's abilities by a few cheap calls.

    The command lists its questions and their cost, and asks before it spends. The money counts against no key's limit.

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
    # With --json, stdout holds the JSON alone; people still read the list that they agree to.
    _print_questions(questions, target, to_stderr=as_json)
    if is_dry_run:
        return
    if not is_agreed and not all(one.is_free for one in questions):
        _agree(target)
    mask = make_mask(settings, catalogue, env)
    asked = asyncio.run(_ask_all(catalogue.limits, target, questions, mask, prints=not as_json))
    lines = write_lines(target, [one.learned for one in asked])
    if as_json:
        _print_json(target, questions, asked, lines)
    else:
        _print_end(target, questions, asked, lines)
    if len(asked) < len(questions):
        raise CannotProbe(f"Not asked, because further answers would prove nothing: {_name_left(questions, asked)}.")


def _find_target(catalogue: Catalogue, name: str) -> Target:
    """The target of this label, or the first one of this upstream. Raises CannotProbe if there is none."""
    found = next((one for one in catalogue.targets if name in (one.label, one.upstream)), None)
    if found is not None:
        return found
    if name in catalogue.not_configured:
        raise CannotProbe(f"{name} is not configured: {catalogue.not_configured[name]}.")
    names = ", ".join(catalogue.document.upstreams)
    raise CannotProbe(f"There is no upstream {name!r} with a key; the catalogue has {names}.")


def _print_questions(questions: tuple[Question, ...], target: Target, *, to_stderr: bool) -> None:
    typer.echo(f"{target.label}, {target.config.model} at {target.config.base_url}", err=to_stderr)
    for one in questions:
        typer.echo(f"  {one.name:<13} {_show_cost(one, target):<20} {one.asks}", err=to_stderr)
    typer.echo(f"In total {_show_total(questions, target)}.\n{_OWN_MONEY}", err=to_stderr)


def _show_cost(question: Question, target: Target) -> str:
    if question.is_free:
        return "free"
    cost = cost_at_most(question, target)
    return "cost unknown" if cost is None else f"at most ${show_usd(cost)}"


def _show_total(questions: tuple[Question, ...], target: Target) -> str:
    costs = [cost_at_most(one, target) for one in questions]
    paid = sum(not one.is_free for one in questions)
    if None in costs:
        return f"{paid} paid calls of unknown cost: the catalogue has no price for them"
    total = show_usd(sum(one for one in costs if one is not None))
    return f"{paid} paid calls, ${total} at most by the catalogue's prices"


def _agree(target: Target) -> None:
    if not sys.stdin.isatty():
        raise CannotProbe("Nothing was sent: this spends money. In a script, agree with --yes.")
    if not typer.confirm(f"Spend this with {target.label}?", err=True):
        raise CannotProbe("Nothing was sent.")


async def _ask_all(
    limits: Limits, target: Target, questions: tuple[Question, ...], mask: Mask, *, prints: bool
) -> list[_Asked]:
    """Ask each question once, until an answer makes further questions useless; return those that were asked."""
    asked: list[_Asked] = []
    with tempfile.TemporaryDirectory(prefix="imagegate-probe-") as folder:
        async with open_probe(target, limits, Path(folder), mask) as run:
            for question in questions:
                seen = await run.ask(question)
                learned = question.read(seen, target)
                words = tuple(mask.clean(one, _MOST_WORDS) for one in learned.words)
                asked.append(_Asked(question, seen, replace(learned, words=words)))
                if prints:
                    _print_answer(asked[-1])
                if ends(question, seen, asked[-1].learned):
                    break
    return asked


def _print_answer(one: _Asked) -> None:
    typer.echo(f"\n{one.question.name}: {one.question.asks} {one.learned.verdict}")
    for words in one.learned.words:
        typer.echo(f"  {words}")


def write_lines(target: Target, learned: list[Learned]) -> str:
    """The upstream's entry for the catalogue, with the answers, as YAML; empty if the catalogue has all of them."""
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
            f"\nPut this into the catalogue in place of `{target.upstream}`, then run `imagegate check`:\n\n{lines}",
            nl=False,
        )
    elif len(asked) == len(questions):
        typer.echo("\nThe catalogue has all of this already.")


def _name_left(questions: tuple[Question, ...], asked: list[_Asked]) -> str:
    return ", ".join(one.name for one in questions[len(asked) :])


def _print_json(target: Target, questions: tuple[Question, ...], asked: list[_Asked], lines: str) -> None:
    answers = {one.question.name: one for one in asked}
    shown: dict[str, Any] = {
        "target": target.label,
        "model": target.config.model,
        "questions": [_describe(one, target, answers.get(one.name)) for one in questions],
        "catalogue": lines or None,
    }
    typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())


def _describe(question: Question, target: Target, asked: _Asked | None) -> dict[str, Any]:
    cost = cost_at_most(question, target)
    shown: dict[str, Any] = {
        "name": question.name,
        "asks": question.asks,
        "cost_usd_at_most": None if cost is None else show_usd(cost),
        "verdict": None,
    }
    if asked is None:
        return shown
    learned = asked.learned
    return shown | {
        "verdict": learned.verdict,
        "words": list(learned.words),
        "capabilities": dict(learned.capabilities),
        "seconds": round(asked.seen.seconds, 1),
    }
