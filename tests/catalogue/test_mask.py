"""The mask of a process knows every secret and every inner host of its settings, catalogue and environment."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from gateway.catalogue.catalogue import load
from gateway.catalogue.mask import make_mask
from gateway.net.outside_text import Mask
from gateway.process.data_folder import Secrets
from gateway.process.settings import SHIPPED_CONFIG, SOURCE_CONFIG, Settings

SECRETS = {
    "upstream key": "vk-Upstr3am-Key-0001",
    "pepper": "pepper-0123-4567-89ab-cdef-ghij",
    "signing key": "signing-0123-4567-89ab-cdef-ghij",
    "given pepper": "given-pepper-0123-4567-89ab-cdef",
    "callback secret": "callback-0123-4567-89ab-cdef-ghij",
    "admin token": "adm1n-0123-4567-89ab-cdef-ghij-k",
    "Redis password": "r3dis/Pass-word+1",
    "Sentinel password": "s3ntinel-Pass-word",
    "storage secret": "st0rage/Secret+Key=",
    "storage token": "st0rage-Session-Token",
    "variable": "v4riable-Secret-0001",
}
HOSTS = ["redis-a.corp.example", "redis-b.corp.example", "10.20.30.40", "s3.corp.example", "minio.corp.example"]


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Mask:
    shipped = (SOURCE_CONFIG if SOURCE_CONFIG.is_file() else SHIPPED_CONFIG).read_text()
    config = tmp_path_factory.mktemp("mask") / "gateway.yaml"
    config.write_text(shipped.replace("https://www.anyfast.ai", "http://10.20.30.40:8080"))
    env = {
        "ANYFAST_API_KEY": SECRETS["upstream key"],
        "AWS_SECRET_ACCESS_KEY": SECRETS["storage secret"],
        "AWS_ENDPOINT_URL": "http://minio.corp.example:9000",
        "SOME_PASSWORD": SECRETS["variable"],
        "TOKEN_FILE": "/run/secrets/token-file",
        "PATH": "/usr/local/bin:/usr/bin",
    }
    sentinels = "redis-a.corp.example:26379,redis-b.corp.example:26379/main"
    login = f"user:{quote(SECRETS['Redis password'], safe='')}"
    options = f"sentinel_password={SECRETS['Sentinel password']}"
    settings = Settings(
        config=config,
        data_dir=Path("/nowhere"),
        redis_url=SecretStr(f"redis+sentinel://{login}@{sentinels}?{options}"),
        storage_url=f"s3://bucket/x?endpoint=https://s3.corp.example&token={SECRETS['storage token']}&region=us-east-1",
        public_url="https://images.example.com",
        key_pepper=SecretStr(SECRETS["given pepper"]),
        callback_secret=SecretStr(SECRETS["callback secret"]),
        admin_token=SecretStr(SECRETS["admin token"]),
    )
    own = Secrets(SECRETS["pepper"].encode(), SECRETS["signing key"].encode())
    return make_mask(settings, load(config, env), env, "unix:///tmp/v.sock", own)


@pytest.mark.parametrize("name", SECRETS)
def test_secret_is_known(mask: Mask, name: str) -> None:
    """Each secret is hidden in a message and in a line of the log."""
    assert mask.clean(f"a {SECRETS[name]} b", 200) == "a *** b"
    assert mask.hide_secrets(f"a {SECRETS[name]} b") == "a *** b"


@pytest.mark.parametrize("host", HOSTS)
def test_inner_host_is_known(mask: Mask, host: str) -> None:
    """Hosts of Redis, of the storage and of the upstreams are hidden in a message; the log may name them."""
    assert mask.clean(f"connect to {host} failed", 200) == "connect to [address] failed"
    assert mask.hide_secrets(f"connect to {host} failed") == f"connect to {host} failed"


def test_ordinary_values_stay(mask: Mask) -> None:
    """Variables and options that hold no secret are no secrets."""
    text = "user us-east-1 bucket /run/secrets/token-file /usr/local/bin main images.example.com"
    assert mask.clean(text, 200) == text


def test_simulator_keys_are_no_secrets() -> None:
    """In demo mode the names of upstreams, which the simulator takes as keys, stay in the log and in messages."""
    settings = Settings(data_dir=Path("/nowhere"))
    catalogue = load(settings.config, {}, simulator_url="http://127.0.0.1:9")
    line = " ".join([*(target.label for target in catalogue.targets), *(target.key for target in catalogue.targets)])
    assert make_mask(settings, catalogue, {}).hide_secrets(line) == line
