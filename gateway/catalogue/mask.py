"""The log mask of one process. It hides secrets and inner hosts in texts from outside and in log lines.

It has nothing to do with the masks of pictures. The secrets and hosts come from the settings, the catalogue and the
environment. This module reads no file, and logs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from pydantic import SecretStr

from gateway.catalogue.catalogue import Catalogue
from gateway.net.outside_text import Mask, read_query, read_url
from gateway.process.data_folder import Secrets
from gateway.process.redis_url import RedisUrl, read_redis_url
from gateway.process.settings import Settings

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:KEY|SECRET|TOKEN|PASSWORD|PASSWD|PEPPER|CREDENTIALS?|SAS)(?:_|$)(?!.*(?:FILE|PATH|DIR|URL)$)",
    re.IGNORECASE,
)
"""Names of variables and of storage options that hold secrets, those of the object storages among them."""

_ENDPOINT_NAME = re.compile(r"(?:^|_)ENDPOINT(?:_|$)", re.IGNORECASE)


def make_mask_of_environment(env: Mapping[str, str]) -> Mask:
    """Make a mask where no settings can be read: it hides each value in `env` whose name is that of a secret."""
    return Mask(value for name, value in env.items() if _SECRET_NAME.search(name) or name.endswith("REDIS_URL"))


def make_mask(
    settings: Settings,
    catalogue: Catalogue,
    env: Mapping[str, str],
    store_url: str | None = None,
    own: Secrets | None = None,
) -> Mask:
    """Make the mask for every text from outside and every log line of this process.

    `store_url` is the URL of the Redis in use, `own` the data folder's secrets. Sets `on_change` of every key file, so
    that the mask learns each new key.
    """
    stores = [read_redis_url(url) for url in {store_url, _reveal(settings.redis_url)} if url]
    secrets = [
        *(_reveal(secret) for name, secret in settings if isinstance(secret, SecretStr) and name != "redis_url"),
        *(key.decode(errors="replace") for key in ((own.pepper, own.signing_key) if own else ())),
        # The simulator's keys are published, and some of them are names of upstreams.
        *(target.key for target in catalogue.targets if not catalogue.is_simulated),
        *(value for name, value in env.items() if _SECRET_NAME.search(name)),
        *(password for store in stores for password in _list_passwords(store)),
        *_list_storage_secrets(settings.storage_url or ""),
    ]
    urls = [
        *(target.config.base_url for target in catalogue.targets),
        *(value for name, value in env.items() if _ENDPOINT_NAME.search(name)),
        *(value for name, value in _read_options(settings.storage_url or "") if _ENDPOINT_NAME.search(name)),
    ]
    hosts = [*(host for store in stores for host, _ in store.hosts), *(_host_of(url) for url in urls)]
    mask = Mask(secrets, hosts)
    for target in catalogue.targets:
        if target.key_file is not None:
            target.key_file.on_change = mask.learn
    return mask


def _reveal(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()


def _list_passwords(store: RedisUrl) -> Iterator[str]:
    for options in (store.login, store.sentinel_login, store.tls):
        yield from (str(value) for name, value in options.items() if "password" in name)


def _list_storage_secrets(url: str) -> Iterator[str]:
    parts = read_url(url)
    if parts is not None and parts.password:
        yield unquote(parts.password)
    yield from (value for name, value in _read_options(url) if _SECRET_NAME.search(name))


def _read_options(url: str) -> list[tuple[str, str]]:
    parts = read_url(url)
    return (read_query(parts.query) or []) if parts else []


def _host_of(url: str) -> str:
    parts = read_url(url)
    return (parts.hostname or "") if parts else ""
