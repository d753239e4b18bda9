"""`imagegate operators`: tokens for the admin API, made, listed and taken away on the command line."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.processes import gateway, imagegate, until
from tests.support.shell import Shell


def test_token_is_printed_alone(shell: Shell) -> None:
    """The token stands alone on stdout, so that a script can take it; what people want to know is on stderr."""
    done = shell.type("operators", "create", "ana", "--role", "admin")
    assert done.exit_code == 0
    assert done.stdout.startswith("igo_")
    assert len(done.stdout.strip()) == 42
    assert "ana is admin" in done.output


def test_operators_are_listed(shell: Shell) -> None:
    """The list has names and roles, and of a token only how it begins; who is deleted is not in it."""
    token = shell.ask("operators", "create", "eva@example.org")["token"]
    shell.ask("operators", "create", "ana", "--role", "admin")
    listed = shell.type("operators", "list").stdout
    assert [line.split("\t")[:3] for line in listed.splitlines()[1:]][1] == [
        "eva@example.org",
        "viewer",
        f"{token[:8]}…",
    ]
    assert token not in listed
    assert [(row["name"], row["role"]) for row in shell.ask("operators", "list")["data"]] == [
        ("ana", "admin"),
        ("eva@example.org", "viewer"),
    ]
    assert shell.type("operators", "delete", "ana").exit_code == 0
    assert [row["name"] for row in shell.ask("operators", "list")["data"]] == ["eva@example.org"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("create", "a b"), 2, "letters, digits"),
        (("create", "eva", "--role", "root"), 2, "viewer"),
        (("create", "taken"), 2, "already"),
        (("delete", "nobody"), 1, "operators list"),
    ],
    ids=str,
)
def test_wrong_operator_is_refused(shell: Shell, words: tuple[str, ...], code: int, told: str) -> None:
    """What cannot be is refused with what would be right."""
    shell.ask("operators", "create", "taken")
    done = shell.type("operators", *words)
    assert (done.exit_code, told in done.output) == (code, True), done.output


def test_changes_are_written_down(shell: Shell) -> None:
    """Who gave and took a token stands in the log of changes, without the token."""
    token = shell.ask("operators", "create", "ana")["token"]
    shell.type("operators", "delete", "ana")
    log = shell.type("changes", "--json").stdout
    assert "operator.create" in log
    assert "operator.delete" in log
    assert "operator:ana" in log
    assert token not in log


def test_token_opens_the_running_gateway(tmp_path: Path) -> None:
    """A token that a command made beside a running gateway opens its admin API; a key that is made there works."""
    data = tmp_path / "data"
    with gateway(data, "--demo", "--port", "0", GATEWAY_ADMIN_TOKEN="9f86d081884c7d659a2feaa0c55ad015") as run:
        token = imagegate("operators", "create", "ana", "--role", "admin", "--data-dir", str(data)).stdout.strip()
        with httpx.Client(base_url=run.url, trust_env=False, verify=False) as client:
            made = client.post("/admin/api/v1/keys", json={"name": "eva"}, headers={"authorization": f"Bearer {token}"})
            assert made.status_code == 201
            used = client.get("/v1/models", headers={"authorization": f"Bearer {made.json()['key']}"})
            assert used.status_code == 200
        # The answers come before what the gateway logs of them.
        until(lambda: "operator:ana" in run.err)
        assert token not in run.err
