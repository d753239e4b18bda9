"""No body, however strange, is more than a refusal."""

import pytest

GOOD = '"model": "gpt-image-2", "prompt": "x"'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe{}",
        b"[" * 100_000,
        f'{{{GOOD}, "n": 1, "n": 2}}'.encode(),
        f'{{{GOOD}, "n": NaN}}'.encode(),
        f'{{{GOOD}, "n": 1{"0" * 5000}}}'.encode(),
        b'{"model": "gpt-image-2", "prompt": "\\ud800"}',
    ],
)
@pytest.mark.parametrize("upstream", ["anyfast", "apiany"])
def test_strange_json_refused(hand, upstream, body):
    """A body that is not one plain JSON object is refused, and the log can still be read."""
    headers = {**hand.headers(upstream), "content-type": "application/json"}
    answer = hand.client.post(f"/{upstream}/v1/images/generations", headers=headers, content=body)
    assert answer.status_code == 400
    assert hand.log()[-1]["refusal"]


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_other_media_type_refused(hand, content_type):
    """JSON declared as something else, or as nothing, is refused; so is a form that is none."""
    headers = {**hand.headers("anyfast"), "content-type": content_type}
    for path in ("generations", "edits"):
        answer = hand.client.post(f"/anyfast/v1/images/{path}", headers=headers, content=f"{{{GOOD}}}")
        assert answer.status_code == 415


@pytest.mark.parametrize(
    "content",
    [b"", b"--b\r\n", b"--b\r\ncontent-disposition: form-data\r\n\r\nx\r\n--b--\r\n", b"no boundary at all"],
)
def test_strange_form_refused(hand, content):
    """A form that cannot be read is refused."""
    headers = {**hand.headers("anyfast"), "content-type": "multipart/form-data; boundary=b"}
    answer = hand.client.post("/anyfast/v1/images/edits", headers=headers, content=content)
    assert answer.status_code == 400


def test_doubled_scalar_refused(hand):
    """A scalar given twice is refused, and a scalar where a file belongs is undocumented."""
    part = 'content-disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    parts = [("model", "gpt-image-2"), ("prompt", "x"), ("image", "text")]
    headers = {**hand.headers("anyfast"), "content-type": "multipart/form-data; boundary=b"}
    for given in (parts, [*parts[:2], parts[1]]):
        body = "".join("--b\r\n" + part.format(*one) for one in given) + "--b--\r\n"
        answer = hand.client.post("/anyfast/v1/images/edits", headers=headers, content=body)
        assert answer.status_code == 400
    assert [seen["undocumented"] for seen in hand.log()] == [["image"], []]
    assert hand.log()[1]["refused"] == ["prompt"]


@pytest.mark.parametrize("url", ["http://[", "http://127.0.0.1:99999/", "http:///x", "nothing", ""])
def test_strange_callback_refused(hand, url):
    """A callback that is no web address is refused."""
    assert hand.submit(callback_url=url).status_code == 400


def test_endless_digits_refused(hand):
    """A number of thousands of digits is refused like any other."""
    assert hand.edit(("image", hand.draw()), n="1" * 5_000).status_code == 400
