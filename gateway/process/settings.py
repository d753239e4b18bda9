"""The settings of the process: every `GATEWAY_*` variable, checked at start and frozen.

This module reads no file, and holds nothing of the catalogue but its path.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from gateway.process.addresses import read_network
from gateway.process.redis_url import FORMS, read_redis_url
from gateway.process.units import read_seconds

PREFIX = "GATEWAY_"
SECRET_BYTES = 32
"""The least length of the pepper, of the signing key and of the callback secret."""

TOKEN_LENGTH = 32
"""The least length of an admin token that is not weak, in characters."""

_DISTINCT = 8
_PLACEHOLDERS = (
    *("changeme", "replaceme", "placeholder", "password", "example", "yourtoken", "yoursecret", "admintoken"),
    *("longrandomtext", "abcdefghij", "qwertyuiop", "0123456789", "1234567890"),
)

SHIPPED_CONFIG = Path(__file__).parent.parent / "config" / "gateway.yaml"
SOURCE_CONFIG = Path(__file__).parent.parent.parent / "config" / "gateway.yaml"

# Kubernetes sets variables for every service of a namespace; a service called "gateway" gives these.
_INJECTED = re.compile(r"GATEWAY_(SERVICE_.+|PORT_.+)$")


class StartRefused(Exception):
    """The command cannot run. The text has the fault and the remedy, for the user."""

    exit_code: ClassVar[int] = 1

    def tell(self) -> str:
        """The whole text for the user."""
        return str(self)


class SettingsError(StartRefused):
    """The environment is wrong; each of `problems` is a line: the variable, the fault, a right value."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    @override
    def tell(self) -> str:
        return "These settings cannot be used:\n" + "\n".join(f"  {line}" for line in self.problems)


def _split_list(value: object) -> object:
    if isinstance(value, str):
        return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
    return value


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _http_url(value: str | None) -> str | None:
    if value is None:
        return None
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("not such a URL")
    return value.rstrip("/")


def _redis_url(secret: SecretStr | None) -> SecretStr | None:
    if secret is None:
        return None
    read_redis_url(secret.get_secret_value())
    return secret


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        parts = urlsplit(origin)
        is_origin = parts.scheme in ("http", "https") and bool(parts.hostname)
        if origin != "*" and (not is_origin or parts.path or parts.query or parts.fragment):
            raise ValueError(f"{origin!r} is not an origin")
    return origins


def _networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(read_network(network) for network in networks)
    if any(network.endswith("/0") for network in found):
        raise ValueError("all addresses at once would let every caller choose its address")
    return found


def _long_enough(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and len(secret.get_secret_value().encode()) < SECRET_BYTES:
        raise ValueError(f"shorter than {SECRET_BYTES} bytes")
    return secret


def find_weakness(token: str) -> str | None:
    """The reason why an admin token counts as easy to guess; None if it does not."""
    if len(token) < TOKEN_LENGTH:
        return f"shorter than {TOKEN_LENGTH} characters"
    if len(set(token)) < _DISTINCT:
        return f"fewer than {_DISTINCT} different characters"
    plain = re.sub(r"[^a-z0-9]", "", token.lower())
    return next((f"it holds {word!r}" for word in _PLACEHOLDERS if word in plain), None)


def is_loopback(host: str) -> bool:
    """True for `localhost` and for a loopback address, which only this machine can reach; False for any other name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_config() -> Path:
    """The default catalogue's path: in the working directory, else in this package or its source tree.

    If none exists, it is the path in the working directory.
    """
    candidates = (Path("config/gateway.yaml").absolute(), SHIPPED_CONFIG, SOURCE_CONFIG)
    return next((path for path in candidates if path.is_file()), candidates[0])


class Settings(BaseSettings):
    """The settings. A field's description has the form of a right value; error messages quote it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Only `load_settings` reads the environment: it also finds unknown names, which pydantic would ignore.
        return (init_settings,)

    config: Annotated[Path, AfterValidator(_absolute)] = Field(
        default_factory=find_config, description="the path of the catalogue, such as config/gateway.yaml"
    )
    data_dir: Annotated[Path, AfterValidator(_absolute)] = Field(
        default=Path(".imagegate"),
        validate_default=True,
        description="a folder of this instance's own, such as /var/lib/imagegate",
    )
    redis_url: Annotated[SecretStr | None, AfterValidator(_redis_url)] = Field(
        default=None,
        description=f"{FORMS}; unset, an embedded server runs",
    )
    redis_wait_replicas: int = Field(
        default=0, ge=0, le=16, description="how many replicas must have a change of money before it counts, 0 to 16"
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="an address to listen on, such as 0.0.0.0")
    port: int = Field(default=8080, ge=0, le=65535, description="a number from 1 to 65535, or 0 for any free port")
    workers: int = Field(default=1, ge=1, le=256, description="a number of worker processes from 1 to 256")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error"
    )
    public_url: Annotated[str | None, AfterValidator(_http_url)] = Field(
        default=None, description="the address callers use, such as https://images.example.com"
    )
    simulator_url: Annotated[str | None, AfterValidator(_http_url)] = Field(
        default=None, description="the address of a running simulator, such as http://127.0.0.1:8090"
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_split_list), AfterValidator(_origins)] = Field(
        default=(), description="origins with commas between them, such as https://app.example.com, or *"
    )
    trusted_proxies: Annotated[tuple[str, ...], BeforeValidator(_split_list), AfterValidator(_networks)] = Field(
        default=(), description="addresses or networks with commas between them, such as 10.0.0.5, 172.16.0.0/12"
    )
    storage_url: str | None = Field(
        default=None,
        description="s3://bucket/prefix, gs://bucket, az://container or file:///folder; unset, the data folder",
    )
    admin_token: SecretStr | None = Field(
        default=None,
        description="a long random text, such as `openssl rand -hex 32` prints; unset, the admin API is off",
    )
    key_pepper: Annotated[SecretStr | None, AfterValidator(_long_enough)] = Field(
        default=None, description=f"at least {SECRET_BYTES} random bytes, such as `openssl rand -hex 32` prints"
    )
    signing_key: Annotated[SecretStr | None, AfterValidator(_long_enough)] = Field(
        default=None, description=f"at least {SECRET_BYTES} random bytes, such as `openssl rand -hex 32` prints"
    )
    callback_secret: Annotated[SecretStr | None, AfterValidator(_long_enough)] = Field(
        default=None,
        description=f"at least {SECRET_BYTES} random bytes, such as `openssl rand -hex 32` prints; unset, no callbacks",
    )
    stop_s: Annotated[float, BeforeValidator(read_seconds)] = Field(
        default=30,
        ge=0,
        le=3600,
        description="seconds from 0 to 3600, such as 30 or 1m, that a stop takes while no paid call is in progress",
    )
    drain_s: Annotated[float, BeforeValidator(read_seconds)] = Field(
        default=330,
        ge=0,
        le=3600,
        description="seconds from 0 to 3600, such as 330 or 6m, that a stop waits for paid pictures",
    )


def variable(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def variables() -> list[str]:
    """Every variable that may be set."""
    return [variable(field) for field in Settings.model_fields]


def load_settings(env: Mapping[str, str]) -> Settings:
    """Read the settings from an environment. Raises SettingsError with all faults.

    An unknown `GATEWAY_*` variable is a fault too, except those that Kubernetes sets for a service named `gateway`.
    """
    values, problems = _collect(env)
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [_explain(detail, values) for detail in error.errors(include_url=False, include_context=False)]
    if "redis_url" in values:
        problems += [
            f"{variable(name)}: required with GATEWAY_REDIS_URL, since every replica must have the same; "
            f"set {Settings.model_fields[name].description}"
            for name in ("key_pepper", "signing_key")
            if name not in values
        ]
    elif settings is not None and settings.redis_wait_replicas:
        problems.append(
            f"{variable('redis_wait_replicas')}: the embedded server has no replicas; set GATEWAY_REDIS_URL too"
        )
    if settings is not None and settings.callback_secret is not None and settings.public_url is None:
        problems.append(
            f"{variable('callback_secret')}: vendors need a public URL to call back; set GATEWAY_PUBLIC_URL too"
        )
    if settings is not None and not is_loopback(settings.host) and (warning := find_token_warning(settings)):
        problems.append(warning)
    if settings is None or problems:
        raise SettingsError(problems)
    return settings


def find_token_warning(settings: Settings) -> str | None:
    """A warning about a weak admin token, or None. `load_settings` refuses such a token unless the host is loopback."""
    if settings.admin_token is None or not (weakness := find_weakness(settings.admin_token.get_secret_value())):
        return None
    right = Settings.model_fields["admin_token"].description
    return f"{variable('admin_token')}: a weak token ({weakness}), which opens every key and budget; set {right}"


def _collect(env: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The fields that are set with their values, and a line for each unknown variable. An empty value is not set."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in sorted(env.items()):
        if not name.startswith(PREFIX):
            continue
        field = name.removeprefix(PREFIX).lower()
        if name == variable(field) and field in Settings.model_fields:
            is_injected = field == "port" and value.startswith(("tcp://", "udp://"))
            # Compose passes an unset variable as an empty one.
            if value.strip() and not is_injected:
                values[field] = value.strip()
        elif not _INJECTED.match(name):
            problems.append(_unknown(name))
    return values, problems


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), Settings.model_fields, n=1)
    hint = f"did you mean {variable(near[0])}?" if near else f"known are {', '.join(variables())}"
    return f"{name}: no such setting; {hint}"


def _explain(detail: Any, values: Mapping[str, Any]) -> str:
    field = str(detail["loc"][0])
    info = Settings.model_fields[field]
    given = values.get(field)
    is_secret = "Secret" in str(info.annotation)
    shown = "the value" if is_secret else repr(given)
    # Pydantic's own reasons say less than the description.
    reason = f" ({str(detail['msg']).removeprefix('Value error, ')})" if detail["type"] == "value_error" else ""
    return f"{variable(field)}: {shown} is refused{reason}; set {info.description}"
