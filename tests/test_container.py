"""The container's files: valid for the tools that read them, hardened, and in step with the settings."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.catalogue.catalogue import read
from gateway.process.settings import SOURCE_CONFIG, load_settings
from gateway.server.demo import upstream_keys

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def test_compose_file_is_valid(compose: dict[str, Any]) -> None:
    """The compose file follows the Compose specification's own schema."""
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(compose, schema)


def test_every_service_is_hardened(compose: dict[str, Any]) -> None:
    """No service may write its root, gain rights or run as root, and each tells its health."""
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["healthcheck"]["test"][0] == "CMD"
    assert compose["services"]["valkey"]["user"] == "valkey"
    assert compose["services"]["valkey"]["networks"] == ["store"]
    assert compose["networks"]["store"]["internal"] is True


def test_compose_names_real_settings(compose: dict[str, Any]) -> None:
    """What compose sets is taken by the gateway as it is, with the secrets given and with nothing else."""
    given = {
        name: _interpolate(value, {"GATEWAY_KEY_PEPPER": "p" * 32, "GATEWAY_SIGNING_KEY": "s" * 32})
        for name, value in compose["services"]["gateway"]["environment"].items()
    }
    settings = load_settings(given)
    assert settings.redis_url is not None
    assert settings.workers == 1
    assert set(upstream_keys(read(SOURCE_CONFIG))) <= set(given)


def test_ledger_survives_anything(compose: dict[str, Any]) -> None:
    """The Valkey of compose writes before it answers and throws nothing away."""
    command = compose["services"]["valkey"]["command"]
    for words in ("--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction"):
        assert words in command


def test_stop_leaves_time_to_drain(compose: dict[str, Any]) -> None:
    """A stop by compose waits longer than the gateway's own drain."""
    grace = int(compose["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace > load_settings({}).drain_s + 15


def test_dockerfile_builds_anywhere() -> None:
    """The Dockerfile needs no feature of one builder, and every package comes by its hash."""
    assert not re.search(r"<<-?['\"]?\w+|--link|--mount", DOCKERFILE)
    assert "ARG PYTHON_IMAGE=python:3.13-slim" in DOCKERFILE
    assert "--require-hashes -r requirements.lock" in DOCKERFILE
    assert "--no-deps --no-build-isolation --no-index" in DOCKERFILE
    assert "USER 10001:10001" in DOCKERFILE
    assert 'CMD ["imagegate", "serve"]' in DOCKERFILE


def test_context_holds_what_is_copied() -> None:
    """Everything the Dockerfile copies is let through by .dockerignore, which lets nothing else through."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word.strip("./") for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M) for word in line.split()
    }
    assert copied == allowed


def _interpolate(value: str, env: dict[str, str]) -> str:
    """What compose makes of `${NAME:-default}` and `${NAME:?message}`."""
    return re.sub(
        r"\$\{(\w+):([-?])(.*?)\}",
        lambda match: env.get(match[1]) or (match[3] if match[2] == "-" else pytest.fail(f"{match[1]} is not set")),
        value,
    )
