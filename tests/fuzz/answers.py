"""Hypothesis strategies of upstreams' answers: shape, status, framing, encoding, numbers and links."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.support.gateways import ENV
from tests.support.plain_pictures import encode, png
from tests.support.played_vendor import BREAKS, HERE, WHOLE, Encoding, VendorAnswer

PICTURE = png(1024, 1024)
B64 = base64.b64encode(PICTURE).decode()
JPEG = base64.b64encode(encode("JPEG", 1024, 1024)).decode()
OWN = HERE.decode()

FILES = {
    "good.png": VendorAnswer(body=PICTURE, kind=b"image/png"),
    "page": VendorAnswer(body=b"<html>sign in</html>", kind=b"text/html"),
    "moved": VendorAnswer(302, headers=((b"Location", HERE + b"/files/good.png"),)),
    "away": VendorAnswer(302, headers=((b"Location", b"http://127.0.0.1:1/"),)),
    "loop": VendorAnswer(302, headers=((b"Location", b"/files/loop"),)),
    "cut": VendorAnswer(body=PICTURE, framing="short"),
    "zipped": VendorAnswer(body=PICTURE, encoding="gzip"),
    "empty": VendorAnswer(body=b""),
}
GOOD_LINK = f"{OWN}/files/good.png"
LINKS: list[Any] = [
    *(GOOD_LINK, GOOD_LINK, f"{OWN}/files/moved", f"{OWN}/files/away", f"{OWN}/files/loop", f"{OWN}/files/cut"),
    *(f"{OWN}/files/zipped", f"{OWN}/files/empty", f"{OWN}/files/none", f"{OWN}/files/page", "/files/good.png", "/"),
    *("http://127.0.0.1:1/x.png", "https://169.254.169.254/latest", "https://[::1]/", "http://[bad", "https://", "x"),
    *("file:///etc/passwd", "https://user:pass@a.test/", "https://a.test:99999/", "\x00", "https://a\r\nb/", "", None),
    *("data:image/png;base64," + B64, "data:,", "https://" + "a" * 70_000 + "/", 7, [], {"url": GOOD_LINK}, "//x/y"),
]

NUMBERS: list[Any] = [
    *(
        0,
        1,
        12,
        1056,
        1068,
        4160,
        -1,
        1.5,
        True,
        None,
        "12",
        "NaN",
        [],
        {},
        -0.0,
        10**6,
        10**10,
        10**15,
        10**28,
        1e308,
    ),
]

SECRETS = [value for value in ENV.values() if value != "sim-c"]
TEXTS: list[Any] = [
    *("", "bad prompt", "<script>alert(1)</script>", "a\r\nset-cookie: b", "x" * 5000, "\u202e\x00\ud800", "{0}%s${x}"),
    *("overloaded", "no available channel", None, 5, ["a"], {"a": 1}, f"{OWN}/inner"),
    *(f"wrong key {secret}" for secret in SECRETS),
]
CODES: list[Any] = [
    *(
        "invalid_request",
        "content_policy",
        "insufficient_quota",
        "rate_limit_exceeded",
        "model_not_found",
        "",
        None,
        429,
    ),
    *("expired", "timeout", "x" * 500, [], {}, "server_error", "moderation_blocked", "image_generation_user_error"),
]
STATUSES = [
    200,
    200,
    200,
    200,
    201,
    202,
    204,
    206,
    299,
    301,
    302,
    304,
    307,
    400,
    401,
    402,
    403,
    404,
    405,
    408,
    409,
    411,
]
STATUSES += [
    413,
    415,
    418,
    421,
    422,
    425,
    426,
    429,
    431,
    451,
    499,
    500,
    500,
    501,
    502,
    502,
    503,
    503,
    504,
    505,
    507,
    511,
]
STATUSES += [520, 521, 522, 523, 524, 525, 529, 530, 598, 599]
WORDS = [
    "completed",
    "succeeded",
    "SUCCESS",
    "failed",
    "expired",
    "pending",
    "processing",
    "rejected",
    "?",
    "",
    None,
    1,
    [],
]
TICKETS: list[Any] = [
    "task-1",
    "task-1",
    17,
    0,
    True,
    "",
    None,
    "a/../b",
    "x" * 3000,
    "é\x00",
    "?a=b#c",
    "\ud800",
    {},
    ["t"],
]
POLL_URLS: list[Any] = [
    "/v1/tasks/TICKET",
    f"{OWN}/v1/tasks/x",
    "http://[bad",
    "https://evil.test/v1/x",
    "/v1/../x",
    None,
]
POLL_URLS += ["/v1/" + "a" * 70_000, "\r\n", 5, "/files/good.png", "//evil.test/v1/x", ""]
RETRY_AFTER = [
    b"0",
    b"1",
    b"-5",
    b"99999999999999",
    b"nan",
    b"inf",
    b"1e400",
    b"Wed, 21 Oct 2015 07:28:00 GMT",
    b"x",
    b"",
]
RETRY_AFTER += [b"Wed, 21 Oct 99999999999 07:28:00 GMT", b"Wed, 21 Oct 2015 07:28:00 +9999"]


def pictures() -> st.SearchStrategy[Any]:
    """What stands where a picture should."""
    data = st.sampled_from(
        [B64, B64, B64, JPEG, B64[:-5], "data:image/png;base64," + B64, "AAAA", "", "!", None, 5, [B64]]
    )
    extra = st.dictionaries(st.sampled_from(["revised_prompt", "size", "x"]), st.sampled_from(TEXTS), max_size=1)
    keyed = st.tuples(st.sampled_from(["b64_json", "b64_json", "url", "image", "b64", "image_base64"]), data)
    linked = st.tuples(st.sampled_from(["url", "url", "image_url", "b64_json"]), st.sampled_from(LINKS))
    return st.builds(lambda pair, more: {**more, pair[0]: pair[1]}, st.one_of(keyed, linked), extra)


def errors() -> st.SearchStrategy[Any]:
    """An error object, or what some send for one."""
    parts = {"message": st.sampled_from(TEXTS), "type": st.sampled_from(CODES), "code": st.sampled_from(CODES)}
    full = st.fixed_dictionaries({}, optional={**parts, "param": st.sampled_from(["prompt", None, 5, "x" * 999])})
    return st.one_of(full, full, st.sampled_from([None, "failed", "", [], {}, 5, True]))


def usages() -> st.SearchStrategy[Any]:
    number = st.sampled_from(NUMBERS)
    names = ["input_tokens", "output_tokens", "total_tokens", "text_tokens"]
    details = st.fixed_dictionaries({}, optional={"text_tokens": number, "image_tokens": number})
    counts = st.fixed_dictionaries(
        dict.fromkeys(names[:3], number), optional={"input_tokens_details": details, "cost": number}
    )
    return st.one_of(counts, st.sampled_from([None, [], "", 7]))


def bodies() -> st.SearchStrategy[Any]:
    """A document of any of the known shapes, or of none."""
    lists = st.one_of(st.lists(pictures(), max_size=3), st.lists(st.sampled_from(LINKS), max_size=3), pictures())
    parts: dict[str, st.SearchStrategy[Any]] = {
        "created": st.sampled_from(NUMBERS),
        "status": st.sampled_from(WORDS),
        "task_id": st.sampled_from(TICKETS),
        "poll_url": st.sampled_from(POLL_URLS),
        "usage": usages(),
        "error": errors(),
        "credits": st.dictionaries(
            st.sampled_from(["charged", "reserved", "used"]), st.sampled_from(NUMBERS), max_size=2
        ),
    }
    places = st.tuples(st.sampled_from(["data", "data", "images", "results", "urls"]), lists)
    nested = st.tuples(st.just("result"), st.builds(lambda pair: dict([pair]), places))
    holder = st.one_of(places, places, nested).map(lambda pair: dict([pair]))
    document = st.builds(lambda more, images: {**more, **images}, st.fixed_dictionaries({}, optional=parts), holder)
    bare = st.fixed_dictionaries({}, optional=parts)
    good = st.builds(
        lambda usage, n: {"usage": usage, "data": [{"b64_json": B64}] * n}, usages(), st.sampled_from([1, 1, 2, 40])
    )
    return st.one_of(document, bare, good, st.sampled_from([None, [], 5, "x", [{"b64_json": B64}], {"message": "no"}]))


def answers() -> st.SearchStrategy[VendorAnswer]:
    """Any answer to a paid POST or to a poll."""

    def build(
        status: int, document: Any, text: bytes | None, framing: Any, encoding: Encoding, more: Any
    ) -> VendorAnswer:
        body = json.dumps(document).encode() if text is None else text
        return VendorAnswer(status, body, framing, encoding, headers=more[0], kind=more[1])

    texts = [
        b"",
        b"<html><h1>403 Forbidden</h1></html>",
        b"{",
        b"[" * 3000,
        b"data: {}\n\n",
        b'{"a":1}{"b":2}',
        b"\xff\xfe\x00",
        b"nul",
    ]
    kinds = [b"application/json", b"application/json", b"text/html", b"text/event-stream", b"image/png", b"\xff", b""]
    headers = st.one_of(
        st.just(()),
        st.just(()),
        st.sampled_from(RETRY_AFTER).map(lambda value: ((b"Retry-After", value),)),
        st.sampled_from([b"http://[bad", b"https://evil.test/", HERE + b"/files/good.png"]).map(
            lambda value: ((b"Location", value),)
        ),
        st.sampled_from([b"a" * 9000, b"sid=1", b"\xc3"]).map(lambda value: ((b"Set-Cookie", value),)),
    )
    framing = st.one_of(st.sampled_from(sorted(WHOLE)), st.sampled_from(sorted(WHOLE)), st.sampled_from(BREAKS))
    encodings: list[Encoding] = [
        "identity",
        "identity",
        "identity",
        "identity",
        "gzip",
        "deflate",
        "br",
        "broken gzip",
        "bom",
        "utf-16",
    ]
    return st.builds(
        build,
        st.sampled_from(STATUSES),
        bodies(),
        st.one_of(st.none(), st.none(), st.none(), st.sampled_from(texts)),
        framing,
        st.sampled_from(encodings),
        st.tuples(headers, st.sampled_from(kinds)),
    )


@dataclass(frozen=True)
class Play:
    """One request and what its upstream answers: the paid POST, and the polls of a task."""

    is_task: bool
    n: int
    submission: VendorAnswer
    polls: tuple[VendorAnswer, ...] = ()

    @property
    def model(self) -> str:
        return "task" if self.is_task else "sync"


def plays(*, is_task: bool) -> st.SearchStrategy[Play]:
    """A submission with any answer; for tasks, half of them with a ticket whose polls have any."""
    n = st.sampled_from([1, 1, 1, 2])
    outright = st.builds(Play, st.just(is_task), n, answers())
    if not is_task:
        return outright

    def give_ticket(ticket: Any, url: Any, charge: Any) -> VendorAnswer:
        body = {"task_id": ticket, "poll_url": url, "status": "pending", "credits": charge}
        return VendorAnswer(202, json.dumps(body).encode())

    tickets = st.builds(
        give_ticket, st.sampled_from(TICKETS[:4]), st.sampled_from(POLL_URLS), st.sampled_from([None, {"reserved": 30}])
    )
    polls = st.lists(answers(), max_size=2).map(tuple)
    return st.one_of(outright, st.builds(Play, st.just(True), n, tickets, polls))
