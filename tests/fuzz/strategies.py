"""Hypothesis strategies of requests: right, nearly right and spoiled."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.support.plain_pictures import encode, mask, png
from tests.support.wire_requests import WireRequest

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"
PATHS = st.sampled_from([GENERATIONS, EDITS])
PREFER = b"respond-async, wait=x"

NAMES = ["prompt", "model", "n", "size", "quality", "background", "output_format", "output_compression", "moderation"]
NAMES += ["response_format", "stream", "partial_images", "input_fidelity", "user", "safety_identifier", "style"]
NAMES += ["resolution", "aspect_ratio", "callback_url", "image", "images", "mask", "frame_x", "svg", "__proto__", ""]

STRANGE: list[Any] = [
    *(None, True, False, 0, 1, -1, 2.5, 1e300, -0.0, 2**31, 2**63, 10**40, float("nan"), float("inf"), "", "auto"),
    *("\x00", "x" * 300, "1024x1024", "é𝄞\u202e", "0", "-1", "1e3", " 1 ", "1_0", "٣", "true", "null", "low", "4K"),
    *([], [[]], {}, {"a": None}, ["https://x"], [{"image_url": "data:;base64,AAAA"}], "data:image/png;base64,iVBORw0K"),
    *("../../etc/passwd", "{{7*7}}", "${jndi:ldap://x}", "<script>", "' OR 1=1--", "\r\nx: y", "\ud800", "%s%n"),
    *([{"image_url": "https://127.0.0.1/"}], [{"file_id": "file-1"}], {"image_url": "file:///etc/passwd"}, [None] * 17),
]

PICTURES = [
    png(8, 8),
    mask(8, 8),
    encode("JPEG", 8, 8),
    encode("WEBP", 8, 8),
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\0\0\0\0WEBP",
]
DATA_URL = f"data:image/png;base64,{base64.b64encode(PICTURES[0]).decode()}"

SPLICES = [b"\r\n", b"--", b'"', b"\\", b"{", b"[", b"\x00", b"\xc3", b"\xef\xbb\xbf", b"\\ud800", b"1e999", b":", b","]


def values() -> st.SearchStrategy[Any]:
    """A value of JSON: often one that a field may have, often strange, now and then nested."""
    leaves = st.one_of(st.sampled_from(STRANGE), st.integers(), st.floats(), st.text(max_size=30))
    nested = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=6,
    )
    return st.one_of(st.sampled_from(STRANGE), st.sampled_from(STRANGE), nested)


def documents() -> st.SearchStrategy[dict[str, Any]]:
    """An object with a prompt, most of the time, and a few fields."""
    fields = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), values(), max_size=4)
    starts: list[dict[str, Any]] = [
        {"prompt": "a cat"},
        {"prompt": "a cat"},
        {"prompt": "a cat", "images": [{"image_url": DATA_URL}]},
        {},
    ]
    return st.builds(lambda start, more: {**start, **more}, st.sampled_from(starts), fields)


def edits_of_bytes(most: int) -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """A function that changes, removes, doubles, cuts off or inserts bytes, up to `most` times."""
    edit = st.tuples(st.sampled_from("xrdci"), st.floats(0, 1), st.integers(1, 8), st.sampled_from(SPLICES))
    return st.lists(edit, max_size=most).map(lambda steps: lambda data: _apply(steps, data))


def _apply(steps: list[tuple[str, float, int, bytes]], data: bytes) -> bytes:
    for kind, place, size, splice in steps:
        start = int(place * len(data))
        stop = min(len(data), start + size)
        changed = {
            "x": data[:start] + splice[:size].ljust(stop - start, b"\xfe") + data[stop:],
            "r": data[:start] + data[stop:],
            "d": data[:stop] + data[start:],
            "c": data[:start],
            "i": data[:start] + splice + data[start:],
        }
        data = changed[kind]
    return data


def json_requests() -> st.SearchStrategy[WireRequest]:
    """A JSON body to an image route, some of whose bytes may be spoiled."""

    def build(path: str, fields: dict[str, Any], is_ascii: bool, spoil: Callable[[bytes], bytes]) -> WireRequest:
        text = json.dumps(fields, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
        return WireRequest(path, ((b"content-type", b"application/json"),), spoil(text))

    unspoiled = st.just(bytes)
    return st.builds(build, PATHS, documents(), st.booleans(), st.one_of(unspoiled, edits_of_bytes(2)))


def form_requests() -> st.SearchStrategy[WireRequest]:
    """A multipart body to the edits, with parts in any order and under any names, some spoiled."""
    scalar = st.tuples(
        st.sampled_from(NAMES).map(lambda name: f'name="{name}"'),
        st.sampled_from(["", "1", "auto", "low", "1024x1024", "true", "-1", "\x00", "é"]).map(str.encode)
        | st.binary(max_size=40),
    )
    file = st.tuples(
        st.sampled_from(
            ["image", "image[]", "image[0]", "image[1]", "images", "image[99999999999]", "image[-1]", "mask", "x"]
        ).flatmap(
            lambda name: st.sampled_from(["x.png", "", "../../x", "a\u202e", 'a"b', "x" * 300]).map(
                lambda filename: f'name="{name}"; filename="{filename}"'
            )
        ),
        st.sampled_from(PICTURES),
    )
    extras = st.sampled_from(
        ["", "", "", "content-type: image/png\r\n", "content-transfer-encoding: base64\r\n", "x: y\r\n", ":\r\n"]
    )
    part = st.tuples(st.one_of(scalar, file), extras)
    boundary = st.sampled_from(["b", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "x" * 70, "'()+_,-./:=? a"])

    def build(
        parts: list[tuple[tuple[str, bytes], str]],
        has_prompt: bool,
        boundary: str,
        spoil: Callable[[bytes], bytes],
        spoil_kind: Callable[[bytes], bytes],
    ) -> WireRequest:
        start = [(('name="prompt"', b"a cat"), ""), (('name="image"; filename="x.png"', PICTURES[0]), "")]
        mark = b"--" + boundary.encode()
        body = b"".join(
            mark
            + f"\r\ncontent-disposition: form-data; {head}\r\n{extra}\r\n".encode("utf-8", "replace")
            + data
            + b"\r\n"
            for (head, data), extra in (start if has_prompt else []) + parts
        )
        kind = bytes(
            byte for byte in spoil_kind(f'multipart/form-data; boundary="{boundary}"'.encode()) if 32 <= byte < 127
        )
        return WireRequest(EDITS, ((b"content-type", kind),), spoil(body + mark + b"--\r\n"))

    spoils = st.one_of(st.just(bytes), edits_of_bytes(3))
    kinds = st.one_of(st.just(bytes), st.just(bytes), st.just(bytes), edits_of_bytes(1))
    return st.builds(build, st.lists(part, max_size=5), st.booleans(), boundary, spoils, kinds)


HEADERS = [b"content-type", b"content-encoding", b"x-request-id", b"accept", b"prefer", b"idempotency-key"]
HEADERS += [b"x-stainless-read-timeout", b"x-stainless-timeout", b"x-stainless-retry-count", b"x-gateway-upstream"]
HEADERS += [b"x-gateway-route", b"x-gateway-webhook", b"x-gateway-dry-run", b"authorization", b"origin", b"cookie"]
HEADERS += [
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"forwarded",
    b"content-disposition",
    b"range",
    b"te",
    b"x-api-key",
]

HEADER_VALUES = [b"", b"0", b"-1", b"1e999", b"nan", b"9" * 4301, b"1" * 20, b"*/*", b"[", b";;=", b"%00", b"a" * 4000]
HEADER_VALUES += [
    b"application/json; charset=utf-16",
    b"multipart/form-data",
    b'multipart/form-data; boundary="\\"',
    PREFER,
]
HEADER_VALUES += [b"\xff\xfe", b"gzip", b"identity", b"Bearer x", b"https://[::1", b"https://10.0.0.1/", b"http://[x"]
HEADER_VALUES += [
    b"cost",
    b"anyfast",
    b"wait=99999999999999999999",
    b"wait=0",
    b'respond-async; x="',
    b"\xc2\x85",
    b"a, a",
]


def header_requests() -> st.SearchStrategy[WireRequest]:
    """A generation with strange headers."""
    value = st.sampled_from(HEADER_VALUES) | st.binary(max_size=40).map(
        lambda data: bytes(byte for byte in data if byte >= 32 and byte != 127).strip()
    )
    name = st.sampled_from(HEADERS) | st.from_regex(rb"\A[a-zA-Z0-9_-]{1,20}\Z")
    taken = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"}
    pair = st.tuples(name.filter(lambda name: name.lower() not in taken), value)
    body = json.dumps({"prompt": "a cat"}).encode()
    return st.lists(pair, min_size=1, max_size=5).map(lambda headers: WireRequest(GENERATIONS, tuple(headers), body))


RAW = [
    b"GET /v1/models HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer KEY\r\n\r\n",
    b"POST /v1/images/generations HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer KEY\r\nContent-Length: 18\r\n\r\n"
    b'{"prompt":"a cat"}',
    b"POST /v1/images/generations HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer KEY\r\nTransfer-Encoding: chunked\r\n"
    b'\r\n8\r\n{"prompt\r\na;x=y\r\n":"a cat"}\r\n0\r\nx: y\r\n\r\n',
    b"DELETE /v1/tasks/task_01kab2y7m1c9w8d3f6g5h4j2k0 HTTP/1.0\r\nHost: here\r\nAuthorization: Bearer KEY\r\n\r\n",
]

WIRE_SPLICES = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\x00",
    b":",
    b"\r\nContent-Length: 0",
    b"\r\nHost: there",
    b"\x80",
]
WIRE_SPLICES += [
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nExpect: 100-continue",
    b"\r\n x",
    b"\r\nConnection: close",
    b"%",
]
WIRE_SPLICES += [b"\r\nContent-Length: 99999999999999999999", b"-1", b"0x", b"//", b"/../", b"HTTP/2.0", b"http://x/"]


def raw_requests(key: bytes) -> st.SearchStrategy[list[bytes]]:
    """The bytes of a request with up to three of its places spoiled, in one piece or several."""
    step = st.tuples(st.sampled_from("xrdcii"), st.floats(0, 1), st.integers(1, 8), st.sampled_from(WIRE_SPLICES))

    def build(raw: bytes, steps: list[tuple[str, float, int, bytes]], cuts: list[float]) -> list[bytes]:
        data = _apply(steps, raw).replace(b"KEY", key)
        places = sorted({int(cut * len(data)) for cut in cuts} | {0, len(data)})
        return [data[start:stop] for start, stop in itertools.pairwise(places)]

    return st.builds(build, st.sampled_from(RAW), st.lists(step, max_size=3), st.lists(st.floats(0, 1), max_size=2))
