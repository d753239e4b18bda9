"""One document for one thing: `--json` of a command prints what the admin API answers, over the same store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from gateway.cli import main
from gateway.health.drift import DriftBook
from gateway.ids import new_id
from gateway.money.ledger_results import Opening
from gateway.store.client import StoreClient
from tests.cli.test_webhooks import queue
from tests.support.gateways import Gateways
from tests.support.operator_client import Office, open_office
from tests.support.shell import Shell
from tests.support.store_reader import SECRETS, with_ledger

SINCE, UNTIL = "2026-01-01", "2100-01-01"

READ = {
    "keys list": ("", "/keys"),
    "keys show": ("KEY", "/keys/KEY"),
    "limits show": ("--key KEY", "/limits/keys/KEY"),
    "operators list": ("", "/operators"),
    "holds": ("", "/holds"),
    "teams": ("", "/teams"),
    "usage": (f"--by team,key --since {SINCE} --until {UNTIL}", f"/usage?by=team&by=key&since={SINCE}&until={UNTIL}"),
    "history": (f"--since {SINCE}", f"/history?since={SINCE}"),
    "changes": ("", "/changes"),
    "upstreams": ("", "/upstreams"),
    "webhooks": ("", "/webhooks"),
    "audit": ("", "/audit"),
}
"""Commands that change nothing: their words, and the path that answers the same."""

MORE_READ = (
    ("limits show --team design", "/limits/teams/design"),
    ("limits show --everyone", "/limits/everyone"),
    ("history TASK", "/history/TASK"),
    ("history --since 2020-01-01 --until 2020-01-02", "/history?since=2020-01-01&until=2020-01-02"),
    ("usage --by day --since 1w", "/usage?by=day&since=1w"),
)

CHANGED = {
    "keys change": ("KEY --name eva --max-n 2", "PATCH", "/keys/KEY", {"name": "eva", "max_n": 2}),
    "keys disable": ("KEY", "PATCH", "/keys/KEY", {"enabled": False}),
    "keys enable": ("KEY", "PATCH", "/keys/KEY", {"enabled": True}),
    "keys webhook-secret": ("KEY", "POST", "/keys/KEY/webhook-secret", {}),
    "limits set": ("--team design --usd-day 3", "PUT", "/limits/teams/design", {"usd_day": "3"}),
    "limits unset": ("--team design usd-day", "PUT", "/limits/teams/design", {}),
    "pause": ("--everything", "PUT", "/pauses/everything", {}),
    "resume": ("--everything", "DELETE", "/pauses/everything", None),
    "teams pause": ("design", "PUT", "/pauses/teams/design", {}),
    "teams resume": ("design", "DELETE", "/pauses/teams/design", None),
    "upstreams pause": ("apiany", "PUT", "/pauses/upstreams/apiany", {}),
    "upstreams resume": ("apiany", "DELETE", "/pauses/upstreams/apiany", None),
}
"""Commands after which the same change once more changes nothing, so that both answers are equal."""

MADE = {
    "keys create": ("bob --usd-day 2", "POST", "/keys", {"name": "bob", "limits": {"usd_day": "2"}}),
    "keys rotate": ("KEY", "POST", "/keys/KEY/rotate", {}),
    "operators create": ("eva", "POST", "/operators", {"name": "ian"}),
    "credit": ("--key KEY --usd -1 --reason x", "POST", "/credits", {"scope": "KEY", "usd": "-1", "reason": "x"}),
    "keys delete": ("KEY", "DELETE", "/keys/SPARE", None),
    "operators delete": ("olga", "DELETE", "/operators/igor", None),
}
"""Commands that make something new each time: both answers have the same form."""

ALONE = {"check", "quote", "probe"}
"""Commands without a route."""


@pytest.fixture
def office(gateways: Gateways) -> Office:
    return open_office(gateways)


@pytest.fixture
def shell(shell: Shell, office: Office) -> Shell:
    """Commands over the gateway's store, with its secrets and its catalogue."""
    shell.env |= {
        "GATEWAY_KEY_PEPPER": SECRETS.pepper.decode(),
        "GATEWAY_SIGNING_KEY": SECRETS.signing_key.decode(),
        "GATEWAY_CONFIG": str(office.gateway.settings.config),
    }
    return shell


@pytest.fixture
def names(office: Office, shell: Shell) -> dict[str, str]:
    """A store with something of everything; the ids that the commands name."""
    key = office.post("/keys", name="ana", team="design", webhook="https://8.8.8.8/", limits={"usd_month": "20"})
    office.put("/limits/everyone", images_month=1000)
    for name in ("olga", "igor"):
        office.hire(name)
    spare = office.post("/keys", name="spare")
    office.post("/credits", scope="team:design", usd="0.5", reason="an invoice")
    done = office.gateway.generate(headers={"authorization": f"Bearer {key['key']}"})
    assert done.status_code == 200
    office.gateway.settle()
    asyncio.run(queue(shell.url, lost=True))
    hold = Opening(new_id("task"), key["id"], "0" * 64, 30_000, 2, new_id("worker"), team="design")
    asyncio.run(with_ledger(shell.url, lambda ledger: ledger.open(hold)))
    shell.look(note_drift)
    return {"KEY": key["id"], "SPARE": spare["id"], "TASK": done.headers["x-gateway-task"]}


async def note_drift(redis: StoreClient) -> None:
    book = DriftBook(redis)
    book.note("apiany", "refused", "quality")
    await book.outbox.aclose()


def fill(value: Any, names: dict[str, str]) -> Any:
    """A text, or the texts in a body, with the ids in place of their names."""
    if isinstance(value, dict):
        return {name: fill(one, names) for name, one in value.items()}
    for name, known in names.items():
        value = value.replace(name, known) if isinstance(value, str) else value
    return value


def form(value: Any) -> Any:
    """A document with types in place of its values."""
    if isinstance(value, dict):
        return {name: form(one) for name, one in value.items()}
    return [form(one) for one in value[:1]] if isinstance(value, list) else type(value).__name__


def test_reading_is_the_same(shell: Shell, office: Office, names: dict[str, str]) -> None:
    """Each command that shows something prints the API's document, and none of them is empty here."""
    cases = [(f"{command} {words}", path) for command, (words, path) in READ.items()]
    for words, path in (*cases, *MORE_READ):
        printed = shell.ask(*fill(words, names).split())
        answered = office.get(fill(path, names)) if "?" not in path else office.ask("GET", fill(path, names)).json()
        if "since=1w" in path:
            # Both ends hang on the moment of the question.
            assert printed.keys() == answered.keys()
            assert printed["total"]["requests"] == 1
            printed, answered = ({"rows": one["rows"], "total": one["total"]} for one in (printed, answered))
        assert printed == answered, words
        assert printed.get("data") != [] or "2020" in words, words


def test_changing_is_the_same(shell: Shell, office: Office, names: dict[str, str]) -> None:
    """Each command that changes something prints what the API answers to the same change."""
    for command, (words, method, path, body) in CHANGED.items():
        printed = shell.ask(*command.split(), *fill(words, names).split())
        assert printed == office.ask(method, fill(path, names), json=fill(body, names)).json(), command


def test_making_has_the_same_form(shell: Shell, office: Office, names: dict[str, str]) -> None:
    """Each command that makes something new prints the fields that the API answers."""
    for command, (words, method, path, body) in MADE.items():
        printed = shell.ask(*command.split(), *fill(words, names).split())
        assert form(printed) == form(office.ask(method, fill(path, names), json=fill(body, names)).json()), command


def test_both_tell_the_same_of_a_change(shell: Shell, office: Office, names: dict[str, str]) -> None:
    """A reset by a command and one by the API leave the same line in the log of changes, but for who made it."""
    shell.ask("upstreams", "--reset", "apiany/main")
    office.post("/upstreams/apiany/main/reset")
    facts = ("action", "subject", "before", "after")
    by_api, by_command = ({name: one[name] for name in facts} for one in office.get("/changes", most=2)["data"])
    assert by_api == by_command


def test_no_command_is_left_out() -> None:
    """Every command that has `--json` stands in one of the tables above."""
    found = set(commands_with_json("", typer.main.get_command(main.app)))
    assert found == {*READ, *CHANGED, *MADE, *ALONE}


def commands_with_json(name: str, command: Any) -> Iterator[str]:
    if any("--json" in param.opts for param in command.params):
        yield name.strip()
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands_with_json(f"{name} {word}", command.commands[word] if isinstance(inner, str) else inner)
