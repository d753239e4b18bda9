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

from gateway.pictures.json_stream import BadJson, JsonReader, PictureFault, TooLarge
from gateway.pictures.spool import Blob, MemoryBudget, Spool

KEYS = frozenset({"b64_json"})


def make_spool(folder: Path) -> Spool:
    return Spool(folder, MemoryBudget(1 << 20), keep=64)


async def read(
    document: bytes, cuts: list[int], folder: Path, max_rest: int = 1 << 20, *, is_lenient: bool = False
) -> Any:
    spool = make_spool(folder)
    reader = JsonReader(spool, picture_keys=KEYS, max_rest=max_rest, max_picture=1 << 20, is_lenient=is_lenient)
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
    if isinstance(value, PictureFault):
        return f"fault: {value.reason}"
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
async def test_broken_base64_costs_only_itself(text: str, tmp_path: Path) -> None:
    """In place of a picture that is not base64 stands its fault; the picture beside it is read, whatever the cuts."""
    # A short one is parsed with the document, which a wrong escape breaks.
    for length in (5000,) if text in ("abc\\q", "abc\\u00") else (0, 5000):
        spelled = b"A" * length + text.encode()
        document = b'{"data": [{"b64_json": "' + spelled + b'"}, {"b64_json": "AAAA"}]}'
        for cuts in ([], list(range(len(document) - 60, len(document)))):
            broken, good = (await read(document, cuts, tmp_path))["data"]
            assert broken["b64_json"].startswith("fault: the ")
            assert good == {"b64_json": b"\0\0\0"}
    assert not list(tmp_path.iterdir())


async def test_oversized_parts_are_named(tmp_path: Path) -> None:
    """A picture over its limit costs only itself; text over its limit, and too many values, are refused."""
    picture = base64.b64encode(bytes((1 << 20) + 1))
    made = await read(b'{"b64_json": "' + picture + b'", "a": {"b64_json": "AAAA"}}', [100_000], tmp_path)
    assert made == {"b64_json": "fault: a picture is over 1,048,576 bytes", "a": {"b64_json": b"\0\0\0"}}
    with pytest.raises(TooLarge, match="JSON"):
        await read(b'{"prompt": "' + b"x" * 5000 + b'"}', [], tmp_path, max_rest=1000)
    for tiny in (b"1", b'""', b"[]", b"{}", b'{"":0}'):
        with pytest.raises(TooLarge, match="10,000 values and names"):
            await read(b"[" + b",".join([tiny] * 10_001) + b"]", [], tmp_path)


async def test_pictures_beyond_64_are_left_out(tmp_path: Path) -> None:
    """A document may hold 64 pictures and no more, however small: each costs memory beside its bytes."""
    for picture in ("data:image/png;base64,AAAA", "data:image/png;base64," + "AAAA" * 2000):
        made = await read(json.dumps([picture] * 66).encode(), [], tmp_path)
        assert [isinstance(one, bytes) for one in made] == [True] * 64 + [False] * 2
        assert made[-1] == "fault: there are more than 64 pictures in one document"


DATA_URLS = [
    "data:image/png;base64,",
    "data:;base64,",
    "DATA:IMAGE/PNG;BASE64,",
    "data:image/png;name=my%20photo.png;base64,",
    'data:image/png;name="a, b.png";base64,',
    'data:image/png;name=it"s.png;base64,',
    "data:image/png;name=[1] (2).png;base64,",
    "data:image/png;name=日本語.png;base64,",
    "data:image/png;name=" + "x" * 3000 + ";base64,",
    "data:image/png;charset=utf-8;name=a;base64,",
    "data:image/png; base64,",
    "data:image/png ;base64 ,",
    "  \n\tdata:image/png;base64,",
]


@pytest.mark.parametrize("head", DATA_URLS)
@pytest.mark.parametrize("spelling", ["plain", "ascii", "slashes", "hex"])
async def test_data_urls_mean_the_same_however_spelled(head: str, spelling: str, tmp_path: Path) -> None:
    """A data URL with any parameters, JSON escapes or percent escapes is its picture, short or long, in any cut."""
    for size in (30, 6000):
        data = hashlib.shake_128(b"picture").digest(size)
        text = base64.b64encode(data).decode()
        document = b'{"\\u0069mage\\/" : "' + spell_json(head + text, spelling) + b'"}'
        quoted = spell_json(head + text.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"), spelling)
        for cuts in ([], [40, 41, 43, 44, 47, *range(len(document) - 9, len(document))]):
            assert await read(document, cuts, tmp_path) == {"image/": data}
            assert await read(b'["' + quoted + b'"]', cuts, tmp_path) == [data]


def spell_json(text: str, spelling: str) -> bytes:
    """The text as it may stand between the quotes of JSON."""
    if spelling == "hex":
        return "".join(f"\\u{ord(char):04X}" for char in text).encode()
    spelled = json.dumps(text, ensure_ascii=spelling == "ascii")[1:-1]
    return (spelled.replace("/", "\\/") if spelling == "slashes" else spelled).encode()


@pytest.mark.parametrize("key", ["b64_json", r"b64\u005fjson", r"\u0062\u0036\u0034_json"])
@pytest.mark.parametrize("size", [30, 6000])
async def test_keys_mean_the_same_however_spelled(key: str, size: int, tmp_path: Path) -> None:
    """The key of a picture may be written with escapes, whatever the picture's length."""
    data = hashlib.shake_128(b"picture").digest(size)
    document = b'{"' + key.encode() + b'":"' + base64.b64encode(data) + b'"}'
    assert await read(document, [3, 9], tmp_path) == {"b64_json": data}


async def test_lenient_reader_loses_no_picture(tmp_path: Path) -> None:
    """What JSON forbids in an upstream's texts and numbers costs only itself; bare base64 of a picture is a picture."""
    long = b"\x89PNG\r\n\x1a\n" + bytes(6000)
    jpeg = b"\xff\xd8\xff" + bytes(60)
    document = (
        b'\xef\xbb\xbf{"data": ["' + base64.b64encode(long) + b'", "' + base64.b64encode(jpeg) + b'", "/v1/x.png"],'
        b' "note": "a\\ud83d b", "bad": "\xff\n", "n": NaN, "image": "https:\\/\\/x.example\\/y"}'
    )
    made = await read(document, [10, 500], tmp_path, is_lenient=True)
    assert made["data"] == [long, jpeg, "/v1/x.png"]
    assert (made["note"], made["n"], made["image"]) == ("a? b", None, "https://x.example/y")
    with pytest.raises(BadJson):
        await read(document, [], tmp_path)
    assert await read(b'\xef\xbb\xbf["iVBORw0KGgo="]', [1, 2], tmp_path) == ["iVBORw0KGgo="]
    broken = b'["' + base64.b64encode(jpeg) + b'*", "' + base64.b64encode(long) + b'*"]'
    assert await read(broken, [], tmp_path, is_lenient=True) == [None, None]


async def test_pictures_of_broken_document_are_kept(tmp_path: Path) -> None:
    """The pictures before the place where a document breaks off can still be taken."""
    spool = make_spool(tmp_path)
    reader = JsonReader(spool, picture_keys=KEYS, max_rest=1 << 20, max_picture=1 << 20)
    data = bytes(6000)
    await reader.feed(b'{"data": [{"b64_json": "' + base64.b64encode(data) + b'"}, {"b64_')
    with pytest.raises(BadJson):
        await reader.finish()
    assert [await one.read() for one in reader.pictures] == [data]
    await spool.close()


async def test_link_under_picture_key_is_link(tmp_path: Path) -> None:
    """A web address in place of base64 stays an address."""
    for url in ("https://x.example/y.png", "HTTPS://x.example/" + "y" * 5000):
        assert await read(json.dumps({"b64_json": url}).encode(), [], tmp_path) == {"b64_json": url}


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
    for _ in range(2**17):
        await writer.write(bytes(2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    blob = await writer.finish()
    assert (blob.size, blob.digest()) == (2**18, hashlib.sha256(bytes(2**18)).hexdigest())
    # As many objects would take more than 4 MiB.
    assert peak < 2 * 2**20
    await spool.close()


async def test_nothing_stays_on_disk(tmp_path: Path) -> None:
    """A document that breaks off inside a large picture leaves no file behind."""
    with pytest.raises(BadJson):
        await read(b'{"b64_json": "' + base64.b64encode(bytes(900_000)), [5, 400_000], tmp_path)
    assert list(tmp_path.iterdir()) == []
