"""`gateway.pictures.json_stream`: pictures leave the document, everything else reads as JSON does."""

import base64
import hashlib
import itertools
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.pictures.json_stream import BadJson, JsonReader, TooLarge, decode_data_url
from gateway.pictures.spool import Blob, MemoryBudget, Spool

KEYS = frozenset({"b64_json"})


def make_spool(folder: Path) -> Spool:
    return Spool(folder, MemoryBudget(1 << 20), keep=64)


async def read(document: bytes, cuts: list[int], folder: Path, max_rest: int = 1 << 20) -> Any:
    spool = make_spool(folder)
    reader = JsonReader(spool, picture_keys=KEYS, max_rest=max_rest, max_picture=1 << 20)
    edges = [0, *sorted({cut % (len(document) + 1) for cut in cuts}), len(document)]
    try:
        for start, end in itertools.pairwise(edges):
            await reader.feed(document[start:end])
        return await materialise(await reader.finish())
    finally:
        await reader.abort()
        await spool.close()


async def materialise(value: Any) -> Any:
    if isinstance(value, Blob):
        return await value.read()
    if isinstance(value, list):
        return [await materialise(item) for item in value]
    if isinstance(value, dict):
        return {key: await materialise(item) for key, item in value.items()}
    return value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values, cuts=st.lists(st.integers(0, 5000), max_size=8), ascii_only=st.booleans())
async def test_plain_json_reads_unchanged(value: Any, cuts: list[int], ascii_only: bool, tmp_path: Path) -> None:
    """A document without pictures reads as any JSON parser reads it, wherever its bytes were cut."""
    document = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert await read(document, cuts, tmp_path) == json.loads(document)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pictures=st.lists(st.binary(max_size=900), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 5000), max_size=8),
    style=st.sampled_from(["plain", "escaped", "dataurl", "urlsafe", "wrapped", "bare", "unicode"]),
)
async def test_pictures_arrive_decoded(pictures: list[bytes], cuts: list[int], style: str, tmp_path: Path) -> None:
    """A base64 picture comes out byte for byte, in every spelling that JSON and relays allow."""
    spelled = [spell(picture, style) for picture in pictures]
    items = b",".join(b'{"b64_json" : "' + text + b'", "note": "a \\" b"}' for text in spelled)
    made = await read(b'{"data": [' + items + b'], "n": 1}', cuts, tmp_path)
    assert made == {"data": [{"b64_json": p, "note": 'a " b'} for p in pictures], "n": 1}


def spell(picture: bytes, style: str) -> bytes:
    text = base64.b64encode(picture)
    if style == "escaped":
        return text.replace(b"/", rb"\/")
    if style == "unicode":
        return text.replace(b"+", rb"\u002b").replace(b"A", rb"\u0041")
    if style == "dataurl":
        return b"data:image/png;base64," + text
    if style == "urlsafe":
        return base64.urlsafe_b64encode(picture)
    if style == "wrapped":
        return rb"\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    return text.rstrip(b"=") if style == "bare" else text


async def test_data_urls_leave_any_field(tmp_path: Path) -> None:
    """A data URL becomes a picture whatever its field is called, also inside a list."""
    text = "data:image/png;base64," + base64.b64encode(b"x" * 500).decode()
    made = await read(
        json.dumps({"images": [text, {"image_url": text}], "prompt": "data: none"}).encode(), [], tmp_path
    )
    assert made == {"images": [b"x" * 500, {"image_url": b"x" * 500}], "prompt": "data: none"}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"<html>",
        b'{"b64_json": "abc',
        b'{"a": 1} x',
        b"[" * 5000,
        b'{"a": "\xff"}',
    ],
)
async def test_broken_json_is_refused(document: bytes, tmp_path: Path) -> None:
    """What is not JSON raises BadJson and nothing else."""
    with pytest.raises(BadJson):
        await read(document, [3], tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a*cd",
        "abcde",
        "ab=c",
        "abc\\q",
        'abc\\"',
        "abcd\\\\",
        "abc\\\\/",
        "abc\\u00",
        "abc\\u2044",
        "abc\\u005c",
        "abc\\u0022",
    ],
)
async def test_broken_base64_is_refused(text: str, tmp_path: Path) -> None:
    """A picture that is not base64 raises BadJson."""
    with pytest.raises(BadJson):
        await read(b'{"b64_json": "' + text.encode() + b'"}', [], tmp_path)


async def test_oversized_parts_are_refused(tmp_path: Path) -> None:
    """A picture over its limit and text over its limit are both refused, and named."""
    picture = base64.b64encode(bytes((1 << 20) + 1))
    with pytest.raises(TooLarge, match="picture"):
        await read(b'{"b64_json": "' + picture + b'"}', [100_000], tmp_path)
    with pytest.raises(TooLarge, match="JSON"):
        await read(b'{"prompt": "' + b"x" * 5000 + b'"}', [], tmp_path, max_rest=1000)


async def test_many_tiny_pictures_are_refused(tmp_path: Path) -> None:
    """A document may hold 64 pictures and no more, however small: each costs memory beside its bytes."""
    picture = "data:image/png;base64,AAAA"
    assert len(await read(json.dumps([picture] * 64).encode(), [], tmp_path)) == 64
    with pytest.raises(TooLarge, match="number of pictures is over 64"):
        await read(json.dumps([picture] * 65).encode(), [], tmp_path)


async def test_escapes_cost_little(tmp_path: Path) -> None:
    """A picture that is all escapes takes about as long as one without: looking ahead at each would take minutes."""
    document = b'{"b64_json": "' + rb"\/" * 600_000 + b'"}'
    started = time.process_time()
    made = await read(document, [500_000, 900_001], tmp_path)
    assert made == {"b64_json": b"\xff" * 450_000}
    assert time.process_time() - started < 1


async def test_tiny_pieces_cost_no_more_than_their_bytes(tmp_path: Path) -> None:
    """A sender of single bytes makes the gateway hold a megabyte at most, as any other sender does."""
    spool = make_spool(tmp_path)
    writer = spool.writer()
    tracemalloc.start()
    for _ in range(2**19):
        await writer.write(bytes(2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    blob = await writer.finish()
    assert (blob.size, blob.digest()) == (2**20, hashlib.sha256(bytes(2**20)).hexdigest())
    assert peak < 2 * 2**20
    await spool.close()


async def test_nothing_stays_on_disk(tmp_path: Path) -> None:
    """A document that breaks off inside a large picture leaves no file behind."""
    with pytest.raises(BadJson):
        await read(b'{"b64_json": "' + base64.b64encode(bytes(900_000)), [5, 400_000], tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_blob_holding_data_url_decodes(tmp_path: Path) -> None:
    """A data URL sent as a multipart text part gives its bytes; other text gives None."""
    spool = make_spool(tmp_path)
    url = await spool.blob(b"data:image/png;base64," + base64.b64encode(b"picture" * 200))
    decoded = await decode_data_url(url, spool, 1 << 20)
    assert decoded is not None
    assert await decoded.read() == b"picture" * 200
    assert await decode_data_url(await spool.blob(b"https://example.com/a.png"), spool, 1 << 20) is None
    await spool.close()
