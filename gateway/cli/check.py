"""`imagegate check`: the settings and the catalogue that would run, and likely mistakes, each with file and line.

Reads settings, catalogue and, if it runs, the store. Writes a test file to the storage of pictures, and removes it.
Starts no server, and calls no upstream.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from gateway.catalogue.catalogue import Catalogue, load
from gateway.catalogue.findings import Finding, inspect, reach
from gateway.catalogue.strict_yaml import line_of, parse_yaml
from gateway.cli.resource_checks import ResourceFault, check_redis, check_storage
from gateway.cli.store import AsJson, DataDir, running_store
from gateway.health.drift import OTHER, Drift, DriftBook
from gateway.health.pauses import PauseStore
from gateway.operations.pauses import ActivePause
from gateway.process.data_folder import DataFolder
from gateway.process.settings import Settings, StartRefused, find_token_warning, load_settings, variable
from gateway.server import demo
from gateway.server.listener import address_for_people
from gateway.store.client import StoreUnavailable, connect, describe


class NotUsable(StartRefused):
    """With these settings the gateway does not start, or makes no picture."""


class Warned(StartRefused):
    """There are warnings, and `--strict` was given."""


def check(
    data_dir: DataDir = None,
    is_strict: Annotated[bool, typer.Option("--strict", help="End with exit code 1 if there is a warning.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check settings and catalogue; print the address, upstreams and models that would run.

    \b
    imagegate check && imagegate serve
    imagegate check --strict --json
    """
    env = dict(os.environ) | ({} if data_dir is None else {variable("data_dir"): str(data_dir)})
    settings = load_settings(env)
    catalogue = load(settings.config, env)
    remarks, unread = find_remarks(settings, catalogue)
    if as_json:
        _print_json(settings, catalogue, remarks, unread)
    else:
        for name, value in (*_facts(settings, catalogue), *(("drift", text) for text in (unread,) if text)):
            typer.echo(f"{name:<12} {value}")
        for one in remarks:
            typer.echo(f"{one['level']:<12} {_place(one)}{one['message']}")
    mistakes, warnings = (sum(one["level"] == level for one in remarks) for level in ("error", "warning"))
    if mistakes:
        raise NotUsable(f"{_count(mistakes, 'error')}: the gateway cannot serve like this.")
    if is_strict and warnings:
        raise Warned(f"{_count(warnings, 'warning')}, and --strict allows none.")


def find_remarks(settings: Settings, catalogue: Catalogue) -> tuple[list[dict[str, Any]], str]:
    """Return the findings as JSON objects, and the reason why counts in the store are missing, or "".

    Starts no store.
    """
    url = running_store(settings)
    faults = [*check_storage(settings, catalogue.limits.artifact_ttl), *(check_redis(settings, url) if url else ())]
    drifts, pauses, unread = _read_counts(settings, url, faults)
    findings = [*inspect(catalogue), *describe_drift(catalogue, drifts)]
    remarks = [*_remark_on_settings(settings, catalogue, faults), *_locate(settings, findings)]
    remarks += [_remark("note", "paused", f"{one.describe()}; `resume` ends it") for one in pauses]
    return remarks, unread


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _locate(settings: Settings, findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as JSON objects, with their lines in the file."""
    tree, _ = parse_yaml(settings.config.read_text(encoding="utf-8"))
    return [
        {
            "level": one.level,
            "kind": one.kind,
            "file": str(settings.config),
            "line": line_of(tree, one.place),
            "field": ".".join(map(str, one.place)),
            "message": one.text,
        }
        for one in findings
    ]


def _remark_on_settings(
    settings: Settings, catalogue: Catalogue, faults: Sequence[ResourceFault]
) -> list[dict[str, Any]]:
    found: list[tuple[str, str, str]] = [(one.level, one.kind, one.text) for one in faults]
    if text := find_token_warning(settings):
        found.append(("warning", "weak_token", text))
    if text := DataFolder(settings.data_dir).compare_catalogue(settings.config):
        found.append(("note", "catalogue_changed", text))
    if not catalogue.targets:
        found.append(("warning", "no_upstream", "no upstream is configured, so no model can be reached"))
    if catalogue.targets and DataFolder(settings.data_dir).demo_key_path.exists():
        text = "demo mode made a key without limits in this data folder; `serve` without --demo disables it"
        found.append(("note", "demo_key", text))
    return [_remark(*one) for one in found]


def _remark(level: str, kind: str, text: str) -> dict[str, Any]:
    """A finding that has no place in the catalogue, as a JSON object."""
    return {"level": level, "kind": kind, "file": None, "line": None, "field": None, "message": text}


def _place(one: dict[str, Any]) -> str:
    return f"{one['file']}:{one['line']}: {one['field']}: " if one["file"] else ""


def describe_drift(catalogue: Catalogue, drifts: Sequence[Drift]) -> list[Finding]:
    """A warning for each drift of an upstream that is in the catalogue."""
    return [
        Finding("warning", "drift", ("upstreams", one.upstream), _describe_difference(one))
        for one in drifts
        if one.upstream in catalogue.document.upstreams
    ]


def _describe_difference(one: Drift) -> str:
    refused = "a parameter that it did not name" if one.what == OTHER else f"{one.what}, which it takes"
    what = f"made another {one.what} than promised" if one.kind == "made" else f"refused {refused}"
    often = "once" if one.count == 1 else f"{one.count} times"
    last = datetime.fromtimestamp(one.last // 1_000_000, UTC)
    example = f": {one.example}" if one.example else ""
    return f"{what}, {often}, last at {last:%Y-%m-%dT%H:%MZ}{example}"


def _read_counts(
    settings: Settings, url: str | None, faults: Sequence[ResourceFault]
) -> tuple[list[Drift], list[ActivePause], str]:
    """Return the counted drift, the pauses, and "". If they cannot be read, return none, and the reason.

    Starts no store.
    """
    if url is None:
        where = "the counts are in the embedded store, and no gateway runs in"
        return [], [], f"not known: {where} {settings.data_dir}"
    if any(one.kind in ("store_refused", "store_unavailable") for one in faults):
        return [], [], "not known: see the finding about Redis"
    try:
        return *asyncio.run(_fetch_counts(url)), ""
    except StoreUnavailable as refusal:
        return [], [], f"not known: Redis is unavailable: {refusal}"


async def _fetch_counts(url: str) -> tuple[list[Drift], list[ActivePause]]:
    redis = connect(url)
    try:
        return await DriftBook(redis).read(), [ActivePause.of(one) for one in await PauseStore(redis).list()]
    finally:
        await redis.aclose()


def _facts(settings: Settings, catalogue: Catalogue) -> list[tuple[str, str]]:
    redis, reached = settings.redis_url, reach(catalogue)
    on = {name: labels for name, labels in reached.items() if labels}
    return [
        ("address", address_for_people(settings.host, settings.port)),
        ("workers", str(settings.workers)),
        ("data", f"{settings.data_dir}" if settings.data_dir.exists() else f"{settings.data_dir} (`serve` makes it)"),
        ("store", "embedded" if redis is None else describe(redis.get_secret_value())),
        # The query may hold a secret.
        ("pictures", (settings.storage_url or f"{settings.data_dir}/artifacts").partition("?")[0]),
        ("catalogue", str(settings.config)),
        ("upstreams", ", ".join(one.label for one in catalogue.targets) or _explain_none(settings, catalogue)),
        *(("model", f"{name}: {', '.join(on[name])}") for name in catalogue.document.models if name in on),
        ("aliases", _list_aliases(catalogue, on)),
    ]


def _explain_none(settings: Settings, catalogue: Catalogue) -> str:
    """The needs of `serve` where no upstream is configured, and the demo gateway that runs without one."""
    text, folder = f"none: `serve` needs {demo.name_needed_keys(catalogue.document)}, or --demo", settings.data_dir
    running = DataFolder(folder).running_gateway()
    if running is None or not DataFolder(folder).simulator_path.exists():
        return text
    return f"{text}; a gateway in demo mode (process {running.pid}) runs in {folder} with the simulator"


def _list_aliases(catalogue: Catalogue, on: Mapping[str, list[str]]) -> str:
    if not catalogue.targets:
        return f"{', '.join(catalogue.document.aliases) or 'none'} (no upstream is configured)"
    return ", ".join(name for name in catalogue.document.aliases if name in on) or "none"


def _print_json(settings: Settings, catalogue: Catalogue, remarks: list[dict[str, Any]], unread: str) -> None:
    facts = {
        "catalogue": str(settings.config),
        "upstreams": [target.label for target in catalogue.targets],
        "not_configured": catalogue.not_configured,
        "models": reach(catalogue),
        "findings": remarks,
        "drift_unread": unread or None,
    }
    typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
