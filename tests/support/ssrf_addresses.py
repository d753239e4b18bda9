"""Addresses outside the public internet, and the ways a URL can say one."""

from __future__ import annotations

import ipaddress

PUBLIC = [
    *("8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1"),
    *("192.167.255.255", "169.253.1.1", "223.255.255.254", "2606:4700:4700::1111", "2a00:1450:4001::200e"),
]

NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.254"),
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254"),
    *("169.254.170.2", "172.16.0.1", "172.17.0.1", "172.31.255.254", "192.0.0.1", "192.0.0.192", "192.0.2.1"),
    *("192.88.99.1", "192.168.0.1", "192.168.1.254", "198.18.0.1", "198.19.255.254", "198.51.100.7", "203.0.113.9"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "254.1.2.3", "255.255.255.255"),
    *("::", "::1", "::2", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
    *("::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1", "100::1", "2001::1"),
    *("2001:0:7f00:1::f5ff:fffe", "2001:10::1", "2001:20::1", "2001:2::1", "2001:db8::1", "2002:7f00:1::1"),
    *("2002:808:808::1", "2002:a9fe:a9fe::1", "3fff::1", "5f00::1", "4000::1", "fc00::1", "fd00:ec2::254"),
    *("fd12:3456:789a::1", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff00::1", "ff02::1", "ff0e::1"),
    *("2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1"),
]

_DECORATIONS = [
    "https://{}/",
    "https://{}",
    "https://{}/a.png",
    "https://{}:443/",
    "https://{}:/",
    "https://{}:80/",
    "https://{}:0/",
    "https://{}:8443/",
    "http://{}/",
    "HTTPS://{}/",
    "HTTP://{}:443/",
    "ftp://{}/",
    "gopher://{}:6379/_",
    "//{}/",
    "https://{}/?https://a.test",
    "https://{}#@a.test/",
    "https://{}?@a.test/",
    "https://{}/@a.test",
    "https://a.test@{}/",
    "https://a.test:443@{}/",
    "https://@{}/",
    "https://a.test\\@{}/",
    "https://{}\\@a.test/",
    "https:\\\\{}\\",
    "https:{}",
    "https:/{}/",
    "https:///{}/",
    " https://{}/",
    "https:// {}/",
    "https://\t{}/",
    "https://{}\r\n/",
    "https://{}%00.a.test/",
]


def _spellings_v4(ip: ipaddress.IPv4Address) -> list[str]:
    a, b, c, d = ip.packed
    high, low = f"{a:x}{b:02x}", f"{c:x}{d:02x}"
    dotted = str(ip)
    return [
        dotted,
        f"{dotted}.",
        str(int(ip)),
        hex(int(ip)),
        f"0{int(ip):o}",
        f"{a}.{int(ip) & 0xFFFFFF}",
        f"{a}.{b}.{int(ip) & 0xFFFF}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"00{a}.{b}.{c}.{d}",
        dotted.replace(".", "。"),
        dotted.translate({ord(str(n)): chr(0xFF10 + n) for n in range(10)}),
        dotted.replace("1", "①").replace("2", "②"),
        dotted.replace(".", "%2e"),
        "".join(f"%{ord(sign):02x}" for sign in dotted),
        f"[::ffff:{dotted}]",
        f"[::ffff:{high}:{low}]",
        f"[0:0:0:0:0:FFFF:{high}:{low}]",
        f"[::{dotted}]",
        f"[64:ff9b::{dotted}]",
        f"[2002:{high}:{low}::1]",
        f"[2001:0:{high}:{low}::1]",
        f"[2606:4700::5efe:{dotted}]",
        f"[{dotted}]",
    ]


def _spellings_v6(ip: ipaddress.IPv6Address) -> list[str]:
    whole = str(ip)
    return [
        f"[{whole}]",
        f"[{ip.exploded}]",
        f"[{whole.upper()}]",
        f"[{whole}%25eth0]",
        f"[{whole}%1]",
        whole,
        f"[{whole}].a.test",
        f"[{whole}",
    ]


def forms(address: str) -> list[str]:
    """URLs that reach `address` if anything does: by a name whose answer it is, and spelled out."""
    ip = ipaddress.ip_address(address)
    spellings = _spellings_v4(ip) if isinstance(ip, ipaddress.IPv4Address) else _spellings_v6(ip)
    names = ["a.test", "a.test.", "A.TEST", "localhost", "xn--bcher-kva.test", "bücher.test", "_x.a-b.test", "a..test"]
    # A decoration that moves the host elsewhere leads to a name, whose answer is the same address.
    return [
        *(decoration.format(spellings[0]) for decoration in _DECORATIONS),
        *(decoration.format("a.test") for decoration in _DECORATIONS),
        *(f"https://{host}/" for host in [*names, *spellings]),
    ]
