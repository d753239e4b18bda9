"""Every role at every route of the whole application: one table, and a route without a row fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis as blocking
from fastapi.routing import iter_route_contexts

from gateway.store import names
from tests.support.gateways import Gateways, error_of
from tests.support.operator_client import API, TOKEN, Office, open_office

CALLERS = ("caller", "disabled caller", "expired caller")
STRANGERS = ("nobody", "wrong key", "wrong token", "deleted operator")
OPERATORS = ("viewer", "admin", "admin token")
ROLES = (*STRANGERS, *CALLERS, *OPERATORS)


@dataclass(frozen=True)
class Row:
    """What a route answers to each role; `passed` is the status behind the door, for what the request asks."""

    who: str
    passed: int
    path: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    def status(self, role: str) -> int:
        """The status that a role must get."""
        match self.who:
            case "anybody":
                return self.passed
            case "callers":
                return {"caller": self.passed, "disabled caller": 403}.get(role, 401)
            case "viewers":
                return self.passed if role in OPERATORS else 401
            case _:
                return {"viewer": 403, "admin": self.passed, "admin token": self.passed}.get(role, 401)


TEAM = {"team:path": "nobody"}
NO_KEY = {"key_id": "key_nothing"}

TABLE: dict[tuple[str, str], Row] = {
    ("GET", "/healthz"): Row("anybody", 200),
    ("GET", "/openapi.json"): Row("anybody", 200),
    ("GET", "/readyz"): Row("anybody", 200),
    ("POST", "/v1/images/generations"): Row("callers", 400, body={}),
    ("POST", "/v1/images/edits"): Row("callers", 400, body={}),
    ("GET", "/v1/models"): Row("callers", 200),
    ("GET", "/v1/key"): Row("callers", 200),
    ("GET", "/v1/models/{model:path}"): Row("callers", 404, {"model:path": "of-another-key"}),
    ("GET", "/v1/tasks"): Row("callers", 200),
    ("GET", "/v1/tasks/{task_id}"): Row("callers", 404, {"task_id": "task_of_another_key"}),
    ("DELETE", "/v1/tasks/{task_id}"): Row("callers", 404, {"task_id": "task_of_another_key"}),
    # The link is the credential: signed, and no key reads what another one's link opens.
    ("GET", "/v1/artifacts/{artifact_id}"): Row("anybody", 404, {"artifact_id": "art_of_another_key"}),
    # So is a callback's address, which only this gateway can make.
    ("POST", "/callbacks/{kind}/{task_id}/{call_id}"): Row(
        "anybody", 404, {"kind": "apiany", "task_id": "task_of_another_key", "call_id": "call_of_another_key"}
    ),
    **{
        ("POST", path): Row("anybody", 404, body={})
        for path in ("/v1/images/variations", "/v1/chat/completions", "/v1/responses")
    },
    ("GET", f"{API}/openapi.json"): Row("viewers", 200),
    ("GET", f"{API}/me"): Row("viewers", 200),
    ("GET", f"{API}/operators"): Row("viewers", 200),
    ("POST", f"{API}/operators"): Row("admins", 400, body={}),
    ("DELETE", f"{API}/operators/{{name}}"): Row("admins", 404, {"name": "nobody"}),
    ("GET", f"{API}/keys"): Row("viewers", 200),
    ("POST", f"{API}/keys"): Row("admins", 400, body={}),
    ("GET", f"{API}/keys/{{key_id}}"): Row("viewers", 404, NO_KEY),
    ("PATCH", f"{API}/keys/{{key_id}}"): Row("admins", 404, NO_KEY, {}),
    ("DELETE", f"{API}/keys/{{key_id}}"): Row("admins", 404, NO_KEY),
    ("POST", f"{API}/keys/{{key_id}}/rotate"): Row("admins", 404, NO_KEY, {}),
    ("POST", f"{API}/keys/{{key_id}}/webhook-secret"): Row("admins", 404, NO_KEY, {}),
    ("GET", f"{API}/webhooks"): Row("viewers", 200),
    ("POST", f"{API}/webhooks/{{message_id}}/retry"): Row("admins", 404, {"message_id": "msg_nothing"}),
    ("GET", f"{API}/teams"): Row("viewers", 200),
    ("GET", f"{API}/teams/{{team:path}}"): Row("viewers", 404, TEAM),
    ("GET", f"{API}/limits/everyone"): Row("viewers", 200),
    ("PUT", f"{API}/limits/everyone"): Row("admins", 200, body={}),
    ("DELETE", f"{API}/limits/everyone"): Row("admins", 200),
    ("GET", f"{API}/limits/teams/{{team:path}}"): Row("viewers", 200, TEAM),
    ("PUT", f"{API}/limits/teams/{{team:path}}"): Row("admins", 200, TEAM, {}),
    ("DELETE", f"{API}/limits/teams/{{team:path}}"): Row("admins", 200, TEAM),
    ("GET", f"{API}/limits/keys/{{key_id}}"): Row("viewers", 404, NO_KEY),
    ("PUT", f"{API}/limits/keys/{{key_id}}"): Row("admins", 404, NO_KEY, {}),
    ("DELETE", f"{API}/limits/keys/{{key_id}}"): Row("admins", 404, NO_KEY),
    ("GET", f"{API}/usage"): Row("viewers", 200),
    ("GET", f"{API}/history"): Row("viewers", 200),
    ("GET", f"{API}/history/{{record_id}}"): Row("viewers", 404, {"record_id": "rec_nothing"}),
    ("GET", f"{API}/holds"): Row("viewers", 200),
    ("POST", f"{API}/credits"): Row("admins", 400, body={}),
    ("GET", f"{API}/audit"): Row("viewers", 200),
    ("GET", f"{API}/upstreams"): Row("viewers", 200),
    ("POST", f"{API}/upstreams/{{label:path}}/reset"): Row("admins", 404, {"label:path": "nobody/main"}),
    ("DELETE", f"{API}/upstreams/{{name:path}}/drift"): Row("admins", 404, {"name:path": "nobody"}),
    ("GET", f"{API}/changes"): Row("viewers", 200),
    ("GET", f"{API}/pauses"): Row("viewers", 200),
    ("DELETE", f"{API}/pauses/everything"): Row("admins", 200),
    ("PUT", f"{API}/pauses/everything"): Row("admins", 400, body={"for_s": 0}),
    ("DELETE", f"{API}/pauses/teams/{{team:path}}"): Row("admins", 200, TEAM),
    ("PUT", f"{API}/pauses/teams/{{team:path}}"): Row("admins", 400, TEAM, {"for_s": 0}),
    ("DELETE", f"{API}/pauses/upstreams/{{upstream:path}}"): Row("admins", 404, {"upstream:path": "nobody"}),
    ("PUT", f"{API}/pauses/upstreams/{{upstream:path}}"): Row("admins", 404, {"upstream:path": "nobody"}, {}),
}


@pytest.fixture
def office(gateways: Gateways) -> Office:
    return open_office(gateways)


def credentials(office: Office) -> dict[str, str | None]:
    """What each role sends as its bearer token."""
    gateway = office.gateway
    disabled, disabled_key = gateway.new_key()
    gateway.change_key(disabled.id, enabled=False)
    _, expired_key = gateway.new_key(expires=datetime.now(UTC) - timedelta(days=1))
    deleted = office.hire("gone", "admin").token
    office.delete("/operators/gone")
    return {
        "nobody": None,
        "wrong key": gateway.key[:-1] + ("a" if gateway.key[-1] != "a" else "b"),
        "wrong token": TOKEN[::-1],
        "deleted operator": deleted,
        "caller": gateway.key,
        "disabled caller": disabled_key,
        "expired caller": expired_key,
        "viewer": office.hire("looks").token,
        "admin": office.hire("works", "admin").token,
        "admin token": TOKEN,
    }


def pardon(office: Office) -> None:
    """Forget the wrong keys that came from here: there are to be more of them than a minute allows."""
    redis = blocking.Redis.from_url(office.gateway.store_url)
    redis.delete(names.WRONG_KEYS("127.0.0.1"))
    redis.close()
    office.gateway.services.wrong_keys.forget()


def test_table_has_every_route(office: Office) -> None:
    """A route that nobody decided about fails here, and so does a row of a route that is gone."""
    served: set[tuple[str, str]] = set()
    for context in iter_route_contexts(office.gateway.app.routes):
        assert context.path is not None
        # What cannot say its methods, such as a mounted application, would hide routes.
        assert context.methods, context.path
        served |= {(method, context.path) for method in context.methods}
    assert served == set(TABLE)


def test_every_role_gets_its_status(office: Office) -> None:
    """Each role gets at each route exactly what the table says, in OpenAI's words where that is a refusal."""
    sent = credentials(office)
    assert set(sent) == set(ROLES)
    wrong: list[str] = []
    for (method, pattern), row in TABLE.items():
        path = pattern
        for name, value in row.path.items():
            path = path.replace(f"{{{name}}}", value)
        for role, token in sent.items():
            headers = {} if token is None else {"authorization": f"Bearer {token}"}
            answer = office.gateway.client.request(method, path, headers=headers, json=row.body)
            pardon(office)
            if answer.status_code != row.status(role):
                wrong.append(f"{role} {method} {pattern}: {answer.status_code} and not {row.status(role)}")
            elif answer.is_error:
                error_of(answer)
    assert not wrong, "\n".join(wrong)


def test_nobodys_method_is_refused(office: Office) -> None:
    """A known path answers no method that the table does not have, whoever asks."""
    paths = {path for _, path in TABLE if "{" not in path}
    for path in sorted(paths):
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - {known for known, other in TABLE if other == path}:
            answer = office.gateway.client.request(method, path, headers={"authorization": f"Bearer {TOKEN}"})
            assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed"), (method, path)
