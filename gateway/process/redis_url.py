"""A Redis URL in any of FORMS: parsed for a client, and described without its secrets.

This module never connects. No message quotes a part of the URL: in a mistyped one any part may be the password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

FORMS = (
    "redis://host:6379/0, rediss://host:6380/0, unix:///path.sock, redis+sentinel://host:26379,host:26379/service/0 or "
    "redis+cluster://host:6379,host:6379 (rediss+… with TLS)"
)

PORT = 6379
SENTINEL_PORT = 26379

RedisUrlKind = Literal["server", "socket", "sentinel", "cluster"]
HostPort = tuple[str, int]

_KINDS: dict[str, RedisUrlKind] = {
    "redis": "server",
    "rediss": "server",
    "unix": "socket",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
_TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_password",
)
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_YES_OR_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_REQUIREMENTS = ("required", "optional", "none")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The address of a store. `hosts` are its own or its sentinels'; `tls` holds redis-py's `ssl_*` options."""

    kind: RedisUrlKind
    hosts: tuple[HostPort, ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    is_encrypted: bool = False
    login: dict[str, str] = field(default_factory=dict, repr=False)
    sentinel_login: dict[str, str] = field(default_factory=dict, repr=False)
    tls: dict[str, str | bool] = field(default_factory=dict, repr=False)

    def describe(self) -> str:
        """The URL without credentials and options."""
        if self.kind == "socket":
            return f"unix://{self.path}"
        scheme = "rediss" if self.is_encrypted else "redis"
        scheme += "" if self.kind == "server" else f"+{self.kind}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{hosts}" + "".join(f"/{part}" for part in (self.service, self.db) if part)


def read_redis_url(text: str) -> RedisUrl:
    """Parse a URL. Raises ValueError, whose message has the fault but no right value."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        # The library's message quotes the host, which in a mistyped URL may be the password.
        raise ValueError("not such a URL") from error
    kind = _KINDS.get(parts.scheme)
    if kind is None:
        raise ValueError(f"not such a URL: it must begin with one of {', '.join(f'{name}://' for name in _KINDS)}")
    if parts.fragment:
        raise ValueError("a # in it must be written %23")
    is_encrypted = parts.scheme.startswith("rediss")
    options = _read_options(parts.query, kind, is_encrypted)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    service, db = _read_path(parts, kind, options.pop("db", ""))
    return RedisUrl(
        kind=kind,
        hosts=() if kind == "socket" else _read_hosts(hosts, kind),
        path=unquote(parts.path) if kind == "socket" else "",
        service=service,
        db=db,
        is_encrypted=is_encrypted,
        login=_read_userinfo(userinfo) | _take(options, ("username", "password")),
        sentinel_login={
            name.removeprefix("sentinel_"): value for name, value in _take(options, _SENTINEL_OPTIONS).items()
        },
        tls=_read_tls(options),
    )


def _read_hosts(text: str, kind: RedisUrlKind) -> tuple[HostPort, ...]:
    hosts = tuple(_read_host(piece, SENTINEL_PORT if kind == "sentinel" else PORT) for piece in text.split(","))
    if kind == "server" and len(hosts) > 1:
        raise ValueError("several hosts need the Sentinel or the Cluster form")
    return hosts


def _read_host(text: str, default_port: int) -> HostPort:
    # The library splits one host; it does not know several.
    try:
        parts = urlsplit(f"//{text.strip()}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("a host, or its port, cannot be read") from error
    if not host or port == 0:
        raise ValueError("a host is missing" if not host else "a port is 0")
    return unquote(host), port or default_port


def _read_path(parts: SplitResult, kind: RedisUrlKind, db_option: str) -> tuple[str, int]:
    """The service of a Sentinel form ("" for others), and the number of the database. Raises ValueError."""
    if kind == "socket":
        if parts.netloc.rpartition("@")[2] or not parts.path.strip("/"):
            raise ValueError("the socket's path must follow as /path, which makes three slashes")
        return "", _read_db(db_option)
    pieces = [unquote(piece) for piece in parts.path.split("/") if piece]
    service = pieces.pop(0) if kind == "sentinel" and pieces else ""
    if kind == "sentinel" and not service:
        raise ValueError("the name of the service that the sentinels watch is missing after the hosts")
    if len(pieces) > 1:
        raise ValueError("its path has too many parts")
    db = _read_db(pieces[0] if pieces else db_option)
    if kind == "cluster" and db:
        raise ValueError("a Cluster has only database 0")
    return service, db


def _read_db(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ValueError("the database is not a number")
    return int(text)


def _read_userinfo(text: str) -> dict[str, str]:
    username, _, password = text.partition(":")
    return {name: unquote(value) for name, value in (("username", username), ("password", password)) if value}


def _read_options(query: str, kind: RedisUrlKind, is_encrypted: bool) -> dict[str, str]:
    allowed = {"db"} if kind != "cluster" else set()
    allowed |= {"username", "password"} if kind == "socket" else set()
    allowed |= set(_SENTINEL_OPTIONS) if kind == "sentinel" else set()
    allowed |= set(_TLS_OPTIONS) if is_encrypted else set()
    options = dict(parse_qsl(query, keep_blank_values=True))
    if set(options) - allowed:
        known = ", ".join(sorted(allowed)) or "none"
        raise ValueError(f"it has an option that this form does not know; known options are {known}")
    return options


def _read_tls(options: dict[str, str]) -> dict[str, str | bool]:
    read: dict[str, str | bool] = dict(options)
    if options.get("ssl_cert_reqs", "required") not in _REQUIREMENTS:
        raise ValueError(f"ssl_cert_reqs is none of {', '.join(_REQUIREMENTS)}")
    if "ssl_check_hostname" in options:
        checks = _YES_OR_NO.get(options["ssl_check_hostname"].lower())
        if checks is None:
            raise ValueError("ssl_check_hostname is neither yes nor no")
        read["ssl_check_hostname"] = checks
    return read


def _take(options: dict[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: options.pop(name) for name in names if name in options}
