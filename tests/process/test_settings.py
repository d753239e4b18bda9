"""Settings: everything wrong is named at once, with what would be right, and no secret in it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.process.data_folder import load_secrets
from gateway.process.settings import Settings, SettingsError, find_token_warning, load_settings, variables

SECRET = "s" * 32


def problems(env: Mapping[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(env)
    return caught.value.problems


def test_empty_environment_is_enough() -> None:
    """Nothing has to be set."""
    settings = load_settings({"HOME": "/root", "PATH": "/bin"})
    assert (settings.host, settings.port, settings.workers, settings.drain_s) == ("127.0.0.1", 8080, 1, 330)
    assert settings.data_dir == Path(".imagegate").absolute()
    assert settings.redis_url is None


def test_values_are_read() -> None:
    """Each variable reaches its field, and lists are split at commas."""
    settings = load_settings(
        {
            "GATEWAY_PORT": "9000",
            "GATEWAY_CORS_ORIGINS": "https://a.example, https://b.example:8443",
            "GATEWAY_PUBLIC_URL": "https://images.example.com/",
            "GATEWAY_TRUSTED_PROXIES": "10.0.0.5, 172.16.3.4/12",
            "GATEWAY_DATA_DIR": "~/data",
        }
    )
    assert settings.port == 9000
    assert settings.cors_origins == ("https://a.example", "https://b.example:8443")
    assert settings.public_url == "https://images.example.com"
    assert settings.trusted_proxies == ("10.0.0.5/32", "172.16.0.0/12")
    assert settings.data_dir == Path.home() / "data"


def test_settings_cannot_change() -> None:
    """Settings are frozen: what was checked at start is what runs."""
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).port = 1  # pyrefly: ignore


def test_unknown_name_gets_nearest() -> None:
    """A misspelt variable is refused and the right one named."""
    assert problems({"GATEWAY_REDIS_URI": "redis://h"}) == [
        "GATEWAY_REDIS_URI: no such setting; did you mean GATEWAY_REDIS_URL?"
    ]
    assert "known are GATEWAY_CONFIG" in problems({"GATEWAY_XYZZY": "1"})[0]
    assert "GATEWAY_PORT" in problems({"GATEWAY_port": "1"})[0]


@pytest.mark.parametrize(
    "env",
    [
        {"GATEWAY_PORT": "tcp://10.0.0.1:8080"},
        {"GATEWAY_SERVICE_HOST": "10.0.0.1", "GATEWAY_SERVICE_PORT": "80", "GATEWAY_SERVICE_PORT_HTTP": "80"},
        {"GATEWAY_PORT_8080_TCP": "tcp://10.0.0.1:8080", "GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.1"},
        {"GATEWAY_REDIS_URL": "", "GATEWAY_PORT": " "},
    ],
)
def test_injected_names_are_ignored(env: dict[str, str]) -> None:
    """What Kubernetes injects for a service called gateway, and what compose leaves empty, changes nothing."""
    assert load_settings(env) == load_settings({})


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("GATEWAY_PORT", "eighty", "a number from 1 to 65535"),
        ("GATEWAY_PORT", "70000", "a number from 1 to 65535"),
        ("GATEWAY_WORKERS", "0", "worker processes from 1"),
        ("GATEWAY_TRUSTED_PROXIES", "*", "addresses or networks"),
        ("GATEWAY_TRUSTED_PROXIES", "0.0.0.0/0", "addresses or networks"),
        ("GATEWAY_TRUSTED_PROXIES", "proxy.example.com", "addresses or networks"),
        ("GATEWAY_REDIS_URL", "http://cache", "redis://host:6379/0"),
        ("GATEWAY_REDIS_URL", "cache:6379", "redis://host:6379/0"),
        ("GATEWAY_PUBLIC_URL", "images.example.com", "https://images.example.com"),
        ("GATEWAY_CORS_ORIGINS", "https://a.example/path", "origins with commas"),
        ("GATEWAY_LOG_LEVEL", "loud", "debug, info, warning or error"),
        ("GATEWAY_DRAIN_S", "-1", "seconds from 0 to 3600"),
        ("GATEWAY_KEY_PEPPER", "short", "at least 32 random bytes"),
    ],
)
def test_wrong_value_is_explained(name: str, value: str, right: str) -> None:
    """A refusal names the variable and a right value."""
    lines = [line for line in problems({name: value}) if line.startswith(name)]
    assert len(lines) == 1
    assert right in lines[0]


def test_problems_come_together() -> None:
    """Everything wrong is reported at once, so that one correction is enough."""
    found = problems({"GATEWAY_PORT": "x", "GATEWAY_WORKERS": "x", "GATEWAY_NOPE": "1"})
    assert "GATEWAY_PORT: 'x' is refused; set a number from 1 to 65535, or 0 for any free port" in found
    assert {line.split(":")[0] for line in found} == {"GATEWAY_PORT", "GATEWAY_WORKERS", "GATEWAY_NOPE"}


def test_secret_is_never_quoted() -> None:
    """Neither a refusal nor a repr shows a secret."""
    assert "hunter2" not in "".join(problems({"GATEWAY_KEY_PEPPER": "hunter2", "GATEWAY_REDIS_URL": "x://:hunter2@h"}))
    settings = load_settings({"GATEWAY_ADMIN_TOKEN": "hunter2"})
    assert "hunter2" not in repr(settings)


def test_outside_redis_needs_secrets() -> None:
    """With a Redis of one's own both secrets are required, since replicas must agree on them."""
    found = problems({"GATEWAY_REDIS_URL": "redis://cache", "GATEWAY_KEY_PEPPER": SECRET})
    assert [line.split(":")[0] for line in found] == ["GATEWAY_SIGNING_KEY"]
    load_settings({"GATEWAY_REDIS_URL": "redis://cache", "GATEWAY_KEY_PEPPER": SECRET, "GATEWAY_SIGNING_KEY": SECRET})


def test_callback_secret_needs_an_address() -> None:
    """A secret for callbacks is refused where no vendor could know where to call, and where it could be guessed."""
    (problem,) = problems({"GATEWAY_CALLBACK_SECRET": SECRET})
    assert "GATEWAY_PUBLIC_URL" in problem
    (problem,) = problems({"GATEWAY_CALLBACK_SECRET": "short", "GATEWAY_PUBLIC_URL": "https://images.example.com"})
    assert "shorter than 32 bytes" in problem
    load_settings({"GATEWAY_CALLBACK_SECRET": SECRET, "GATEWAY_PUBLIC_URL": "https://images.example.com"})


def test_made_secrets_last(tmp_path: Path) -> None:
    """A folder's secrets are made once, are private, and give way to the environment's."""
    settings = Settings(data_dir=tmp_path / "data")
    first = load_secrets(settings)
    assert load_secrets(settings) == first
    assert len(first.pepper) >= 32
    assert first.pepper != first.signing_key
    assert (tmp_path / "data" / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    given = load_settings({"GATEWAY_DATA_DIR": str(tmp_path / "data"), "GATEWAY_KEY_PEPPER": SECRET})
    assert load_secrets(given).pepper == SECRET.encode()
    assert load_secrets(given).signing_key == first.signing_key
    assert first.pepper.decode() not in repr(first)


def test_broken_secrets_are_kept(tmp_path: Path) -> None:
    """A damaged secrets file is refused, never replaced: a new pepper would end every key."""
    path = tmp_path / "secrets.json"
    path.write_text("{}")
    with pytest.raises(SettingsError, match="restore it"):
        load_secrets(Settings(data_dir=tmp_path))
    assert path.read_text() == "{}"


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    """A data folder that cannot be made is refused by its name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="GATEWAY_DATA_DIR"):
        load_secrets(Settings(data_dir=tmp_path / "file" / "data"))


def test_every_field_says_what_is_right() -> None:
    """No setting is without a description, and each has one variable."""
    assert all(field.description for field in Settings.model_fields.values())
    assert len(set(variables())) == len(Settings.model_fields)


STRONG = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
WEAK = (
    "hunter2",
    "a" * 40,
    "abcdefg" * 6,
    "changeme-" * 5,
    "Please-Change_Me-Please-Change_Me!",
    "0123456789abcdef" * 2,
)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "gateway.internal"])
@pytest.mark.parametrize("token", WEAK)
def test_weak_admin_token_is_refused(token: str, host: str) -> None:
    """Where others reach the gateway, a token that can be guessed is refused, and not repeated."""
    (problem,) = problems({"GATEWAY_ADMIN_TOKEN": token, "GATEWAY_HOST": host})
    assert problem.startswith("GATEWAY_ADMIN_TOKEN: a weak token (")
    assert "openssl rand -hex 32" in problem
    assert token not in problem


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize("token", WEAK)
def test_weak_admin_token_is_warned_of(token: str, host: str) -> None:
    """On a machine of one's own a weak token is only warned of."""
    settings = load_settings({"GATEWAY_ADMIN_TOKEN": token, "GATEWAY_HOST": host})
    assert "a weak token" in (find_token_warning(settings) or "")


@pytest.mark.parametrize("env", [{}, {"GATEWAY_ADMIN_TOKEN": STRONG}, {"GATEWAY_ADMIN_TOKEN": STRONG[:32]}])
def test_strong_admin_token_is_taken(env: dict[str, str]) -> None:
    """A random token of 32 characters or more, and none at all, is right everywhere."""
    assert find_token_warning(load_settings(env | {"GATEWAY_HOST": "0.0.0.0"})) is None
