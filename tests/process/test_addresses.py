"""Addresses: one spelling of a network, one judgement of a peer, one name for whoever may change his address."""

import pytest

from gateway.process.addresses import add_mapped, is_within, name_source, read_address, read_network


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        (" 10.1.2.3/8 ", "10.0.0.0/8"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
    ],
)
def test_network_has_one_spelling(written: str, read: str) -> None:
    """However a network is written, it is kept in one way."""
    assert read_network(written) == read


@pytest.mark.parametrize("written", ["", "*", "example.com", "10.0.0.0/33", "10.0.0", "1.2.3.4:80", "[::1]", "/tmp/s"])
def test_no_network_is_told(written: str) -> None:
    """What is no address is refused, with one that would be."""
    with pytest.raises(ValueError, match=r"write 203\.0\.113\.7"):
        read_network(written)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("", "None"),
        (None, "None"),
        ("/run/gateway.sock", "None"),
        ("unknown", "None"),
    ],
)
def test_peer_is_read(host: str | None, shown: str) -> None:
    """A peer has an address, the same over both kinds of socket, or none."""
    assert str(read_address(host)) == shown


def test_membership_is_by_network() -> None:
    """An address is within a network that holds it, and no address is within any."""
    networks = ("10.0.0.0/8", "2001:db8::/32")
    assert is_within(read_address("10.255.0.1"), networks)
    assert is_within(read_address("::ffff:10.0.0.1"), networks)
    assert is_within(read_address("2001:db8::5"), networks)
    assert not is_within(read_address("11.0.0.1"), networks)
    assert not is_within(read_address("::a00:1"), networks)
    assert not is_within(None, networks)
    assert not is_within(read_address("10.0.0.1"), ())


def test_subscriber_has_one_name() -> None:
    """All addresses of an IPv6 subscriber count as one, each IPv4 address as itself."""
    assert name_source(read_address("2001:db8:1:2::1")) == name_source(read_address("2001:db8:1:2:ffff::9"))
    assert name_source(read_address("2001:db8:1:2::1")) != name_source(read_address("2001:db8:1:3::1"))
    assert name_source(read_address("192.0.2.1")) == "192.0.2.1"
    assert name_source(None) == "none"


def test_mapped_networks_are_added() -> None:
    """A proxy is trusted by its IPv4 address on an IPv6 socket too."""
    added = add_mapped(("10.0.0.0/8", "2001:db8::/32"))
    assert added == ["10.0.0.0/8", "::ffff:10.0.0.0/104", "2001:db8::/32"]
