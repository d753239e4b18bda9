"""No secret or inner address that an upstream quotes gets out: to callers, logs, records, webhooks, operators."""

from __future__ import annotations

import asyncio
import base64
import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import structlog

from gateway.net.outside_text import Mask
from gateway.state.task_store import TaskRecord
from gateway.tasks.webhooks import write_message
from tests.support.bundles import read_bundle
from tests.support.gateways import OFFICIAL, TASKS, Gateway, Gateways
from tests.support.ledgers import is_soak
from tests.support.outcomes import forget_health
from tests.support.plain_pictures import png
from tests.support.shell import Shell
from tests.support.store_reader import SECRETS, open_tasks, read_everything
from tests.support.vendor import Raw, vendor

KEY, OTHER_KEY = "vk_9fQ2hX7LmT4aZ0", "sk-live-Ab3_dEf6Gh1jKl"
ADMIN, STORAGE = "adm1n-T0ken-of-9c4f2e7b81d05a36-x", "S3cr3t/of+Storage=77"
PLANTED = {
    "upstream key": KEY,
    "upstream key without sk-": OTHER_KEY.removeprefix("sk-"),
    "admin token": ADMIN,
    "storage secret": STORAGE,
    "pepper": SECRETS.pepper.decode(),
    "signing key": SECRETS.signing_key.decode(),
}
ENV_PLANTED = {
    "ANYFAST_API_KEY": KEY,
    "ANYFAST_C_API_KEY": OTHER_KEY,
    "APIANY_API_KEY": KEY,
    "AWS_SECRET_ACCESS_KEY": STORAGE,
}
ADDRESSES = {"10.1.2.3": "http://10.1.2.3:8080/v1", "relay.corp": "relay.corp:8443", "[fe80::7]": "[fe80::7]:99"}


def spell(secret: str) -> list[str]:
    """A secret as it may be quoted: as it is, in a URL, in base64, in JSON within JSON."""
    data = secret.encode()
    return [
        secret,
        quote(secret, safe=""),
        "".join(f"%{byte:02x}" for byte in data),
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(b"Bearer " + data).decode(),
        "".join(f"\\u{byte:04x}" for byte in data),
        data.hex(),
    ]


QUOTE = " ".join([*(one for secret in PLANTED.values() for one in spell(secret)), *ADDRESSES.values()])
"""One text with every secret in every spelling, and every address."""

SHORT = f"{KEY} http://10.1.2.3:8080/v1"

FIELDS = {"message": QUOTE, "type": QUOTE, "code": SHORT, "param": SHORT}
SHAPES: dict[str, Any] = {
    "error object": {"error": FIELDS},
    "error text": {"error": QUOTE},
    "detail": {"detail": [{"msg": QUOTE, "loc": [KEY]}]},
    "message": {"message": QUOTE, "code": SHORT},
    "other types": {"error": {"message": {"said": QUOTE}, "code": [SHORT], "param": {KEY: 1}}},
    "no image": {"data": [{"note": QUOTE}], "status": SHORT, KEY: QUOTE},
    "page": f"<html><title>{QUOTE}</title><h1>{QUOTE}</h1></html>",
    "damaged": '{"data": ' + QUOTE,
}
STATUSES = (200, 202, 302, 400, 401, 403, 404, 413, 429, 451, 500, 503, 504, 520)
PAIRS = [
    (status, name)
    for row, status in enumerate(STATUSES)
    for column, name in enumerate(SHAPES)
    # Each status and each shape several times; every pair in the long runs.
    if is_soak() or status in (200, 400) or (row + column) % 4 == 0
]
HEADERS = (
    ("Location", f"https://{KEY}.relay.corp:8443/{quote(KEY)}?key={KEY}"),
    ("Content-Type", f"text/{KEY}"),
    ("Retry-After", KEY),
    ("X-Request-Id", SHORT),
    ("WWW-Authenticate", f"Bearer realm={KEY}"),
    ("Content-Encoding", "identity"),
)


def find_leaks(text: str, where: str, *, is_address_known: bool = False) -> list[str]:
    """Names of what a text holds and must not hold."""
    secrets = [name for name, secret in PLANTED.items() if any(one in text for one in spell(secret))]
    return [f"{where}: {one}" for one in (*secrets, *(() if is_address_known else (a for a in ADDRESSES if a in text)))]


@contextmanager
def recording(mask: Mask) -> Iterator[list[str]]:
    """The lines that the log would have, with every level and traceback."""
    lines: list[str] = []

    def record(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        trace = traceback.format_exc() if event.get("exc_info") else ""
        lines.append(mask.hide_secrets(f"{json.dumps(event, default=str)}{trace}"))
        raise structlog.DropEvent

    former = structlog.get_config()
    structlog.configure(processors=[record])
    try:
        yield lines
    finally:
        structlog.configure(**former)


Script = dict[str, Any]
"""The vendor's next answers: `submit`, and `poll`, a list, for tasks."""


@pytest.fixture(scope="module")
def quoting() -> Iterator[tuple[str, Script]]:
    """A vendor that answers what its script says: its URL, and the script."""
    script: Script = {}
    with vendor(lambda _, path: script["poll"].pop(0) if "/tasks/" in path else script["submit"]) as (url, _):
        yield url, script


@pytest.fixture
def script(quoting: tuple[str, Script]) -> Script:
    return quoting[1]


@pytest.fixture
def planted(gateways: Gateways, quoting: tuple[str, Script]) -> Gateway:
    """A gateway that knows the secrets, and whose vendors are all that one."""
    return open_planted(gateways, quoting[0])


def open_planted(gateways: Gateways, url: str, **changes: Any) -> Gateway:
    upstreams = {name: {"base_url": url} for name in ("anyfast", "anyfast-c", "apiany")}
    return gateways.open(env=ENV_PLANTED, settings={"admin_token": ADMIN}, upstreams=upstreams, **changes)


def ask(gateway: Gateway, model: str) -> httpx.Response:
    forget_health(gateway)
    return gateway.generate(model=model, size="1024x1024")


async def list_messages(gateway: Gateway) -> list[str]:
    """The webhooks' messages of all tasks."""
    async with open_tasks(gateway.store_url) as store:
        records = [await store.read(one["id"]) for one in await asyncio.to_thread(gateway.task_records)]
    return [write_message(one, gateway.url) for one in records if isinstance(one, TaskRecord) and one.end]


def find_all_leaks(gateway: Gateway, answers: list[httpx.Response], lines: list[str]) -> list[str]:
    """The leaks in everything that came out of the gateway."""
    gateway.settle()
    leaks = [leak for one in answers for leak in find_leaks(f"{one.headers} {one.text}", f"answer {one.status_code}")]
    leaks += [leak for line in lines for leak in find_leaks(line, f"log {line[:200]}")]
    leaks += find_leaks(asyncio.run(read_everything(gateway.store_url)), "Redis")
    leaks += [leak for one in asyncio.run(list_messages(gateway)) for leak in find_leaks(one, "webhook")]
    for path in ("history", "upstreams", "changes", "holds", "webhooks"):
        told = gateway.client.get(f"/admin/api/v1/{path}", headers={"authorization": f"Bearer {ADMIN}"})
        assert told.status_code == 200, (path, told.text)
        leaks += find_leaks(told.text, path)
    leaks += [
        leak
        for one in (gateway.settings.data_dir / "unread_answers").glob("*")
        for leak in find_leaks(one.read_text(), "file")
    ]
    return leaks


def test_answers_quote_nothing(planted: Gateway, script: Script) -> None:
    """Every status with every shape of body, with secrets in each field and header: none of them gets out."""
    answers: list[httpx.Response] = []
    with recording(planted.services.mask) as lines:
        for status, name in PAIRS:
            shape, headers = SHAPES[name], dict(HEADERS)
            body = shape.encode() if isinstance(shape, str) else json.dumps(shape).encode()
            if name == "page":
                del headers["Content-Type"]
            if status == 429:
                # It is waited for.
                headers["Retry-After"] = "0"
            script["submit"] = Raw(body, status, tuple(headers.items()), reason=KEY)
            answers.append(ask(planted, OFFICIAL))
        assert {one.status_code for one in answers} >= {400, 424, 429, 502, 503}
        assert any("***" in one.text for one in answers)
        assert not find_all_leaks(planted, answers, lines)
        assert lines


def test_tasks_quote_nothing(planted: Gateway, script: Script) -> None:
    """Nor do the errors, the states and the reasons of an asynchronous task."""
    script["submit"] = {"task_id": "t1", "status": "pending"}
    answers: list[httpx.Response] = []
    with recording(planted.services.mask) as lines:
        for state in ("failed", "expired", "completed"):
            for name in ("error object", "error text", "detail", "message", "no image"):
                runs = {"task_id": "t1", "status": f"{KEY} http://10.1.2.3:8080/{len(answers)}"}
                script["poll"] = [runs, {**SHAPES[name], "task_id": "t1", "status": state}]
                answers.append(ask(planted, TASKS))
        assert {one.status_code for one in answers} == {424}
        assert not find_all_leaks(planted, answers, lines)


def test_good_answers_quote_nothing(planted: Gateway, script: Script) -> None:
    """A revised prompt is cleaned; a link that cannot be opened and unknown fields are left out."""
    picture = base64.b64encode(png(1024, 1024)).decode()
    answers: list[httpx.Response] = []
    with recording(planted.services.mask) as lines:
        for item in (
            {"b64_json": picture, "revised_prompt": QUOTE},
            {"url": f"https://relay.corp:8443/{KEY}"},
            {"url": f"http://10.1.2.3:8080/{KEY}"},
        ):
            script["submit"] = {"created": 1, "data": [item], "note": QUOTE, "size": SHORT, "usage": {KEY: QUOTE}}
            answers.append(ask(planted, OFFICIAL))
        assert [one.status_code for one in answers] == [200, 424, 424]
        assert "***" in answers[0].json()["data"][0]["revised_prompt"]
        planted.settle()
        leaks = [leak for one in answers for leak in find_leaks(f"{one.headers} {one.text}", "answer")]
        assert not leaks + [leak for line in lines for leak in find_leaks(line, line)]


def test_support_bundle_holds_nothing(
    gateways: Gateways, quoting: tuple[str, Script], script: Script, shell: Shell, tmp_path: Path
) -> None:
    """Nor has a support bundle a secret or a part of one, a prompt, a text of a vendor, a picture or an address."""
    planted = open_planted(gateways, quoting[0], accounting={"keep_prompts": True})
    prompt, picture = "a canary in the rain", png(1024, 1024)
    keyed = {"authorization": f"Bearer {planted.new_key(team='planted-team')[1]}"}
    script["submit"] = {"data": [{"b64_json": base64.b64encode(picture).decode(), "revised_prompt": prompt}]}
    with recording(planted.services.mask) as lines:
        assert planted.generate(keyed, prompt=prompt, size="1024x1024").status_code == 200
        planted.generate(model=f"{prompt} {KEY}")
        for status, name in PAIRS[::3]:
            body = SHAPES[name] if isinstance(SHAPES[name], str) else json.dumps(SHAPES[name])
            script["submit"] = Raw(f"{body}{prompt}".encode(), status, (("Retry-After", "0"),), reason=KEY)
            forget_health(planted)
            planted.generate(prompt=prompt, size="1024x1024")
        planted.settle()
    log = tmp_path / "log"
    log.write_text("\n".join([*lines, json.dumps({"event": f"{planted.key} {QUOTE}", "error": prompt, "task": KEY})]))
    shell.env |= ENV_PLANTED | {
        "GATEWAY_ADMIN_TOKEN": ADMIN,
        "GATEWAY_KEY_PEPPER": SECRETS.pepper.decode(),
        "GATEWAY_SIGNING_KEY": SECRETS.signing_key.decode(),
        "GATEWAY_CONFIG": str(planted.settings.config),
        "GATEWAY_DATA_DIR": str(planted.settings.data_dir),
        "GATEWAY_STORAGE_URL": f"s3://bucket?aws_secret_access_key={quote(STORAGE, safe='')}",
    }
    done = shell.type("support-bundle", str(tmp_path / "bundle.tar.gz"), "--log", str(log))
    assert done.exit_code == 0, done.output
    members = {name: data.decode() for name, data in read_bundle(tmp_path / "bundle.tar.gz").items()}
    everything = "\n".join([*members.values(), done.output])
    assert not find_leaks(everything, "bundle")
    assert prompt not in everything
    assert "planted-team" not in everything
    assert planted.key[:8] not in everything
    assert base64.b64encode(picture).decode()[:40] not in everything
    # It is no empty page that passes.
    found = {name: json.loads(text) for name, text in members.items() if name.endswith(".json")}
    assert len(found["errors.json"]["last"]) > len(PAIRS) // 4
    assert found["log.json"]["lines"]
    assert found["catalogue.json"]["accounting"] == {"keep_prompts": True}


def test_own_routes_name_nothing(planted: Gateway) -> None:
    """The routes that describe the gateway hold no secret and no address either."""
    for path in ("/healthz", "/readyz", "/v1/models", "/v1/key"):
        assert not find_leaks(planted.get(path).text, path)
