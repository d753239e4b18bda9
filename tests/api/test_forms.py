"""`gateway.api.forms` and `json_form`: every dialect of a body gives the same form, and a fault names its field."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message

from gateway import errors
from gateway.api.forms import Form, read_form
from gateway.catalogue.document import Limits
from gateway.pictures.spool import MemoryBudget, Spool
from tests.support.forms import form, part
from tests.support.plain_pictures import data_url, png

PNG = png(5, 4)
B64 = base64.b64encode(PNG).decode()
MULTIPART = "multipart/form-data; boundary=b"
PYTHON_WORDS = re.compile(r"codec|decode|position|Error|Traceback|\bb'|0x|None|while parsing|offset")


async def read(body: bytes, content_type: str, folder: Path, step: int = 1 << 16, **limits: Any) -> dict[str, Any]:
    """The form of a body that arrives in pieces of `step` bytes: fields, images and mask, pictures as bytes or URL."""
    pieces = [body[start : start + step] for start in range(0, len(body), step)] or [b""]

    async def receive() -> Message:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode("latin-1"))]}
    spool = Spool(folder, MemoryBudget(1 << 24))
    try:
        found = await read_form(Request(scope, receive), spool, Limits(**limits), MemoryBudget(1 << 30))
        return await show(found)
    finally:
        await spool.close()
        assert not list(folder.iterdir())


async def show(found: Form) -> dict[str, Any]:
    sources = [*found.images, *([found.mask] if found.mask else [])]
    pictures = [one.url if one.blob is None else await one.blob.read() for one in sources]
    mask = pictures.pop() if found.mask else None
    return {"fields": found.fields, "images": pictures, "mask": mask}


async def refuse(body: bytes, content_type: str, folder: Path, **limits: Any) -> tuple[int, str | None, str]:
    """Status, param and message of the refusal, which is no sentence of a library."""
    with pytest.raises(errors.PublicError) as caught:
        await read(body, content_type, folder, **limits)
    error = caught.value
    assert not PYTHON_WORDS.search(error.message), error.message
    return error.status, error.param, error.message


@pytest.mark.parametrize("name", ["image", "image[]", "image[0]", "image[7]", "images", "images[]", "images[0]"])
async def test_image_file_is_taken_by_each_name(name: str, tmp_path: Path) -> None:
    """A file is an image by every name under which frameworks send one or several."""
    body, kind = form((f'name="{name}"; filename="a.png"', PNG), ('name="prompt"', b"a cat"))
    found = await read(body, kind["content-type"], tmp_path)
    assert (found["images"], found["fields"]["prompt"]) == ([PNG], "a cat")


@pytest.mark.parametrize("name", ["mask", "mask[]", "mask[0]"])
async def test_mask_file_is_taken_by_each_name(name: str, tmp_path: Path) -> None:
    """A file is a mask by every name under which frameworks send one."""
    body, kind = form((f'name="{name}"; filename="m.png"', PNG))
    assert (await read(body, kind["content-type"], tmp_path))["mask"] == PNG


@pytest.mark.parametrize("size", [60, 5 << 20])
@pytest.mark.parametrize("name", ["image1", "image.0", "file", "picture", "prompt", "masks", "image[0][1]", "x" * 300])
async def test_file_under_another_name_is_named(name: str, size: int, tmp_path: Path) -> None:
    """A file under any other name is a 400 that names it and the right names, whatever its size."""
    body, kind = form((f'name="{name}"; filename="a.png"', b"\x89PNG" + bytes(size)))
    status, param, message = await refuse(body, kind["content-type"], tmp_path)
    assert (status, param) == (400, name[:100])
    for right in (f"`{name[:100]}`", "`image`", "`image[]`", "`mask`"):
        assert right in message


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["image[1]", "image[0]"], [1, 0]),
        (["image[2]", "image[10]", "image[1]"], [2, 0, 1]),
        (["image[]", "image[]"], [0, 1]),
        (["image[1]", "image[]", "image[0]"], [2, 0, 1]),
        (["images[3]", "images[2]"], [1, 0]),
        (["image", "image"], [0, 1]),
    ],
)
async def test_images_are_ordered_by_index(names: list[str], order: list[int], tmp_path: Path) -> None:
    """Numbered images come in the order of their numbers, others in the order in which they were sent."""
    body, kind = form(*((f'name="{name}"; filename="a"', bytes([index])) for index, name in enumerate(names)))
    assert (await read(body, kind["content-type"], tmp_path))["images"] == [bytes([index]) for index in order]


@pytest.mark.parametrize("names", [["image", "image[]"], ["images[]", "image[]"], ["image[1]", "image[1]"]])
async def test_ambiguous_images_are_refused(names: list[str], tmp_path: Path) -> None:
    """Two spellings of one list, or one number twice, do not say which picture is first."""
    body, kind = form(*((f'name="{name}"; filename="a"', PNG) for name in names))
    assert (await refuse(body, kind["content-type"], tmp_path))[0] == 400


TEXT = "déjà vu"
ENCODED_PARTS: list[tuple[str, bytes]] = [
    ("content-transfer-encoding: base64", base64.b64encode(TEXT.encode())),
    ("content-transfer-encoding: BASE64 ", base64.encodebytes(TEXT.encode())),
    ("content-transfer-encoding: quoted-printable", b"d=C3=A9j=C3=A0=\r\n vu"),
    ("content-transfer-encoding: 8bit", TEXT.encode()),
    ("content-transfer-encoding: binary", b"\xef\xbb\xbf" + TEXT.encode()),
    ("content-type: text/plain; charset=ISO-8859-1", TEXT.encode("latin-1")),
    ('content-type: text/plain; charset="windows-1252"', TEXT.encode("cp1252")),
    ("content-type: text/plain; charset=GB18030", TEXT.encode("gb18030")),
    ("content-type: text/plain; charset=utf-16", TEXT.encode("utf-16")),
    ("content-type: text/plain; charset=us-ascii", TEXT.encode()),
    (
        "content-type: text/plain; charset=iso-8859-15\r\ncontent-transfer-encoding: quoted-printable",
        b"d=E9j=E0 vu",
    ),
]


@pytest.mark.parametrize(("head", "content"), ENCODED_PARTS)
async def test_encoded_text_part_is_decoded(head: str, content: bytes, tmp_path: Path) -> None:
    """A text part is read by the transfer encoding and the charset that it declares, in any cut."""
    body = part(f'form-data; name="prompt"\r\n{head}', content) + b"--b--\r\n"
    for step in (1, 1 << 16):
        assert (await read(body, MULTIPART, tmp_path, step))["fields"] == {"prompt": TEXT}


async def test_charset_field_counts_for_parts_that_declare_none(tmp_path: Path) -> None:
    """`_charset_` names the charset of the parts after it, and is no parameter."""
    body, kind = form(('name="_charset_"', b"iso-8859-1"), ('name="prompt"', TEXT.encode("latin-1")))
    assert (await read(body, kind["content-type"], tmp_path))["fields"] == {"prompt": TEXT}


@pytest.mark.parametrize("name", ["image", "mask"])
async def test_encoded_file_is_decoded(name: str, tmp_path: Path) -> None:
    """A picture in base64 by its transfer encoding is the picture."""
    head = f'form-data; name="{name}"; filename="a.png"\r\ncontent-transfer-encoding: base64'
    body = part(head, base64.encodebytes(PNG)) + b"--b--\r\n"
    found = await read(body, MULTIPART, tmp_path)
    assert PNG in (found["mask"], *found["images"])


@pytest.mark.parametrize(
    ("head", "content", "said"),
    [
        ('name="prompt"\r\ncontent-transfer-encoding: base64', b"*", "base64"),
        ('name="prompt"\r\ncontent-transfer-encoding: x-uuencode', b"x", "x-uuencode"),
        ('name="prompt"\r\ncontent-type: text/plain; charset=x-mystery', b"x", "x-mystery"),
        ('name="prompt"\r\ncontent-type: text/plain; charset=zip', b"x", "zip"),
        ('name="prompt"\r\ncontent-type: text/plain; charset=gbk', b"\xff\xff", "GBK"),
        ('name="prompt"', b"\xff\xfe", "UTF-8"),
        ('name="prompt"', b"\x89PNG", "UTF-8"),
        ('name="image"; filename="a"\r\ncontent-transfer-encoding: quoted-printable', b"x", "quoted-printable"),
        ('name="image"; filename="a"\r\ncontent-transfer-encoding: base64', b"AAAA=AAA", "base64"),
    ],
)
async def test_unreadable_part_is_named(head: str, content: bytes, said: str, tmp_path: Path) -> None:
    """A part that cannot be decoded is a 400 that names it and its encoding."""
    body = part(f"form-data; {head}", content) + b"--b--\r\n"
    status, param, message = await refuse(body, MULTIPART, tmp_path)
    assert (status, param) == (400, "image" if "image" in head else "prompt")
    assert f"`{param}`" in message
    assert said in message


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\r\n", b"This is a message\r\nin MIME format.\r\n", b"--\r\n\n"])
async def test_text_before_the_first_boundary_is_skipped(before: bytes, tmp_path: Path) -> None:
    """A byte order mark or a preamble before a multipart body means nothing, in any cut."""
    body, kind = form(('name="prompt"', b"a cat"))
    for step in (1, 7, 1 << 16):
        assert (await read(before + body, kind["content-type"], tmp_path, step))["fields"] == {"prompt": "a cat"}


BROKEN = [
    b"",
    b"x" * 100_000,
    b"--b\r\nx\r\n\r\n\r\n--b--",
    b"--bx\r\n\r\n",
    b'--b\r\ncontent-disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n',
    b"--b\r\n" + b"".join(b"x%d: y\r\n" % index for index in range(50)) + b"\r\nx\r\n--b--\r\n",
    b"--b\r\nx: " + b"y" * 20_000 + b"\r\n\r\nx\r\n--b--\r\n",
    b'--b\r\ncontent-disposition: form-data; name="a"\r\r\n\r\nx\r\n--b--\r\n',
    b'--b\r\ncontent-disposition: form-data; name="prompt"\r\n\r\n' + b"\r\n--bx" * 300 + b"\r\n--b--\r\n",
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
async def test_broken_form_is_refused_in_plain_words(body: bytes, tmp_path: Path) -> None:
    """A multipart body that cannot be read is a 400 whose sentence is the gateway's own."""
    assert (await refuse(body, MULTIPART, tmp_path))[0] == 400


async def test_form_parts_have_limit(tmp_path: Path) -> None:
    """More parts than the catalogue allows are a 400 that names the limit."""
    body, kind = form(*((f'name="x{index}"', b"x") for index in range(40)))
    assert len((await read(body, kind["content-type"], tmp_path))["fields"]) == 40
    status, _, message = await refuse(body, kind["content-type"], tmp_path, form_parts=32)
    assert (status, "at most 32 parts" in message) == (400, True)


DOCUMENT = {"prompt": "déjà 🐈", "image": data_url(PNG)}
SAME_JSON = {
    "utf-8": json.dumps(DOCUMENT, ensure_ascii=False).encode(),
    "utf-8 with BOM": json.dumps(DOCUMENT, ensure_ascii=False).encode("utf-8-sig"),
    "utf-16 with BOM": json.dumps(DOCUMENT, ensure_ascii=False).encode("utf-16"),
    "utf-16-le": json.dumps(DOCUMENT, ensure_ascii=False).encode("utf-16-le"),
    "utf-16-be": json.dumps(DOCUMENT, ensure_ascii=False).encode("utf-16-be"),
    "utf-32 with BOM": json.dumps(DOCUMENT, ensure_ascii=False).encode("utf-32"),
    "escaped": json.dumps(DOCUMENT).replace("/", "\\/").encode(),
    "escaped names": json.dumps(DOCUMENT).replace('"image"', '"\\u0069mag\\u0065"').encode(),
}


@pytest.mark.parametrize("name", SAME_JSON)
async def test_json_means_the_same_in_each_form(name: str, tmp_path: Path) -> None:
    """A JSON body gives the same form in every Unicode encoding, with a mark or without, and however it is escaped."""
    for step in (1, 3, 1 << 16):
        found = await read(SAME_JSON[name], "application/json", tmp_path, step)
        assert (found["fields"]["prompt"], found["images"]) == (DOCUMENT["prompt"], [PNG])


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1252", "GBK", "gb18030", "big5", "utf-16", "utf-8"])
async def test_json_is_read_by_its_charset(charset: str, tmp_path: Path) -> None:
    """A JSON body is read by the charset in its Content-Type."""
    prompt = "水彩" if charset in ("GBK", "gb18030", "big5") else TEXT
    body = json.dumps({"prompt": prompt}, ensure_ascii=False).encode(charset)
    for step in (1, 1 << 16):
        found = await read(body, f"application/json; charset={charset}", tmp_path, step)
        assert found["fields"]["prompt"] == prompt


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b'{"prompt": "\xb2\xca"}', "application/json", "UTF-8"),
        (b'{"prompt": "\xff"}', "application/json; charset=gbk", "charset"),
        (b'{"prompt": "x"}', "application/json; charset=rot13", "charset"),
        (b'{"prompt": "x"', "application/json", "ends before it is complete"),
        (b'{"prompt": "x', "application/json", "ends inside a string"),
        (b"{'prompt': 'x'}", "application/json", "double quotes, at line 1 column 2"),
        (b'{"prompt": "x",}', "application/json", "comma"),
        (b'{"prompt": "x", "n": NaN}', "application/json", "line 1 column"),
        (b"\xff\xfe{", "application/json", "charset"),
        (b"[" * 5000, "application/json", "nested too deeply"),
    ],
)
async def test_unreadable_json_is_explained(body: bytes, kind: str, said: str, tmp_path: Path) -> None:
    """JSON that cannot be read is a 400 whose sentence is the gateway's own."""
    status, _, message = await refuse(body, kind, tmp_path)
    assert (status, said in message) == (400, True), message


LINKS = ["https://x.example/a.png", "HTTPS://x.example/a.png", " https://x.example/a.png\n", "Http://x.example/a.png"]


@pytest.mark.parametrize("url", LINKS)
async def test_links_are_read_in_any_case(url: str, tmp_path: Path) -> None:
    """A scheme means the same in any case, and white space around a link means nothing, in JSON and in a form."""
    for body in ({"image": url}, {"images": [{"image_url": url}]}):
        found = await read(json.dumps(body).encode(), "application/json", tmp_path)
        assert found["images"] == [url.strip()]
    body, kind = form(('name="image"', url.encode()))
    assert (await read(body, kind["content-type"], tmp_path))["images"] == [url.strip()]


@pytest.mark.parametrize("head", ["DATA:image/png;BASE64,", "data:image/png;name=a%20b.png;base64,", " data:;base64,"])
async def test_data_urls_are_read_in_each_dialect(head: str, tmp_path: Path) -> None:
    """A data URL with any parameters is its picture in JSON and in a form."""
    for body in ({"image": head + B64}, {"images": [{"image_url": head + B64}]}, {"image": [head + B64]}):
        assert (await read(json.dumps(body).encode(), "application/json", tmp_path))["images"] == [PNG]
    body, kind = form(('name="image"', (head + B64).encode()))
    assert (await read(body, kind["content-type"], tmp_path))["images"] == [PNG]


@pytest.mark.parametrize(
    ("value", "status", "said"),
    [
        ("data:image/png;base64,!!!!", 400, "base64"),
        ("data:image/png;base64," + "A" * 5001, 400, "middle of a byte"),
        ("data:image/png," + B64, 400, ";base64,"),
        (B64, 400, "data:image/png;base64,"),
        ("ftp://x.example/a.png", 400, "https"),
        (5, 400, "https"),
        ("data:image/png;base64," + "A" * 4000, 413, "1,024 bytes"),
    ],
)
async def test_wrong_picture_is_named(value: Any, status: int, said: str, tmp_path: Path) -> None:
    """A picture of a JSON body that cannot be read is refused by the name of its field."""
    body = json.dumps({"images": [{"image_url": data_url(PNG)}, {"image_url": value}]}).encode()
    limit = {"image_bytes": 1024} if status == 413 else {}
    found = await refuse(body, "application/json", tmp_path, **limit)
    assert found[:2] == (status, "images[1].image_url")
    assert said in found[2]
