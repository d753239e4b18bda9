"""IP addresses of clients, and networks as operators write them. Pure functions.

An IPv4 address from an IPv6 socket counts as IPv4.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

_ONE_SITE = 64
"""The length of the IPv6 prefix of one subscriber, who may use any address in it."""


def read_network(text: str) -> str:
    """An address or a network, as a network in canonical form. Raises ValueError with an example, for a user."""
    try:
        network = ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not an address; write 203.0.113.7, 10.0.0.0/8 or 2001:db8::/32") from None
    return str(network)


@lru_cache(maxsize=1024)
def read_address(host: str | None) -> Address | None:
    """The IP address of a peer; None for another text, and for a peer without one, as on a Unix socket."""
    try:
        address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def is_within(address: Address | None, networks: Iterable[str]) -> bool:
    """True when the address is in one of the networks; False for None."""
    return address is not None and any(address in _parse(network) for network in networks)


def name_source(address: Address | None) -> str:
    """One name for all addresses that one peer can use: an IPv6 /64 network, an IPv4 address, or `none`."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> (128 - _ONE_SITE) << (128 - _ONE_SITE), _ONE_SITE)))
    return "none" if address is None else str(address)


@lru_cache(maxsize=4096)
def _parse(network: str) -> IPv4Network | IPv6Network:
    """Parse a network, with a cache: every request of a key checks its networks."""
    return ip_network(network)


def add_mapped(networks: Iterable[str]) -> list[str]:
    """The networks, and each IPv4 network also in the form that an IPv6 socket reports."""
    found: list[str] = []
    for text in networks:
        network = ip_network(text)
        found.append(text)
        if isinstance(network, IPv4Network):
            found.append(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
    return found
