"""A Redis URL: its five forms are read, and what cannot be meant is refused without quoting it."""

import pytest

from gateway.process.redis_url import RedisUrl, read_redis_url


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("redis://cache", RedisUrl("server", (("cache", 6379),))),
        ("redis://cache:6380/2", RedisUrl("server", (("cache", 6380),), db=2)),
        ("redis://[::1]:6380", RedisUrl("server", (("::1", 6380),))),
        ("unix:///run/a%20b.sock?db=3", RedisUrl("socket", path="/run/a b.sock", db=3)),
        ("unix:///s?password=x", RedisUrl("socket", path="/s", login={"password": "x"})),
        (
            "redis://ana:p%40ss@cache",
            RedisUrl("server", (("cache", 6379),), login={"username": "ana", "password": "p@ss"}),
        ),
        (
            "rediss://cache?ssl_ca_certs=/ca.pem&ssl_check_hostname=no",
            RedisUrl(
                "server",
                (("cache", 6379),),
                is_encrypted=True,
                tls={"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
            ),
        ),
        (
            "redis+sentinel://:a@h1,h2:5000/main/1?sentinel_password=b",
            RedisUrl(
                "sentinel",
                (("h1", 26379), ("h2", 5000)),
                service="main",
                db=1,
                login={"password": "a"},
                sentinel_login={"password": "b"},
            ),
        ),
        ("redis+cluster://h1,h2:7000", RedisUrl("cluster", (("h1", 6379), ("h2", 7000)))),
    ],
)
def test_forms_are_read(text: str, read: RedisUrl) -> None:
    """Each form says where the store is, with the usual ports where it names none."""
    assert read_redis_url(text) == read


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cache:6379", "must begin with"),
        ("http://cache", "must begin with"),
        ("redis://", "host is missing"),
        ("redis://cache:hunter2", "cannot be read"),
        ("redis://cache:0", "port is 0"),
        ("redis://[hunter2", "not such a URL"),
        ("redis://\u2100hunter2", "not such a URL"),
        ("redis://cache/hunter2", "database is not a number"),
        ("redis://cache/0/hunter2", "too many parts"),
        ("redis://cache#hunter2", "%23"),
        ("redis://cache?hunter2=1", "known options are db"),
        ("redis://cache?ssl_ca_certs=/x", "known options are db"),
        ("redis://a,b", "Sentinel or the Cluster form"),
        ("rediss://cache?ssl_cert_reqs=hunter2", "required, optional, none"),
        ("rediss://cache?ssl_check_hostname=hunter2", "neither yes nor no"),
        ("unix://", "three slashes"),
        ("unix://run/v.sock", "three slashes"),
        ("redis+sentinel://a,b", "name of the service"),
        ("redis+sentinel://a,,b/main", "host is missing"),
        ("redis+cluster://a/1", "database 0"),
        ("redis+cluster://a?db=1", "known options are none"),
    ],
)
def test_mistakes_are_named(text: str, reason: str) -> None:
    """A URL that cannot be meant is refused with what is wrong, and no part of it, since any may be the password."""
    with pytest.raises(ValueError, match=reason) as caught:
        read_redis_url(text)
    assert "hunter2" not in str(caught.value)


def test_secrets_stay_out_of_repr() -> None:
    """Neither a password nor a key's pass phrase is shown by accident."""
    url = read_redis_url("rediss+sentinel://:hunter2@a/main?sentinel_password=hunter2&ssl_password=hunter2")
    assert "hunter2" not in repr(url)
