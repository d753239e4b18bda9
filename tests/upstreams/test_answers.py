"""What vendors answer, in every known shape: images, links, errors, usage, and the words for a task's state."""

from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.job import Call, FoundImage, Inputs, Sent, Ticket, TokenUsage, UpstreamAnswer
from gateway.net.outside_text import Mask
from gateway.pictures.picture import PictureConverter
from gateway.pictures.spool import Blob, Spool
from gateway.upstreams.apiany import Apiany
from gateway.upstreams.client import Reply, UpstreamClient, find_images, find_usage, read_answer
from gateway.upstreams.error_facts import find_error
from gateway.upstreams.verdict import CallFailed, Failure
from tests.support.plans import picture, target

BLOB, OTHER, EMPTY = Blob(3), Blob(4), Blob(0)
LINK = "https://files.example/1.png"
SPOOL = cast(Spool, None)


@pytest.mark.parametrize(
    ("document", "images"),
    [
        ({"data": [{"b64_json": BLOB}]}, [FoundImage(BLOB)]),
        ({"data": [{"b64_json": BLOB}, {"b64_json": OTHER}]}, [FoundImage(BLOB), FoundImage(OTHER)]),
        ({"data": [{"url": LINK, "revised_prompt": "a red fox"}]}, [FoundImage(url=LINK, revised_prompt="a red fox")]),
        ({"data": [{"b64_json": BLOB, "revised_prompt": "x"}]}, [FoundImage(BLOB, revised_prompt="x")]),
        ({"data": [{"url": LINK, "b64_json": BLOB, "revised_prompt": ""}]}, [FoundImage(BLOB)]),
        ({"data": [{"b64_json": None, "url": LINK, "revised_prompt": 5}]}, [FoundImage(url=LINK)]),
        ({"data": [{"b64_json": EMPTY, "url": LINK}]}, [FoundImage(url=LINK)]),
        ({"data": {"url": LINK}}, [FoundImage(url=LINK)]),
        ({"data": [LINK]}, [FoundImage(url=LINK)]),
        ({"result": {"data": [{"url": LINK}]}}, [FoundImage(url=LINK)]),
        ({"result": {"data": [{"b64_json": BLOB}]}}, [FoundImage(BLOB)]),
        ({"result": {"urls": [LINK, "/files/2.png"]}}, [FoundImage(url=LINK), FoundImage(url="/files/2.png")]),
        ({"result": {"images": [{"url": LINK}]}}, [FoundImage(url=LINK)]),
        ({"result": {"images": [{"url": [LINK, LINK]}]}}, [FoundImage(url=LINK), FoundImage(url=LINK)]),
        ({"result": [{"url": LINK}]}, [FoundImage(url=LINK)]),
        ({"results": [{"image_url": LINK}]}, [FoundImage(url=LINK)]),
        ({"results": [{"image": {"url": LINK}, "revised_prompt": "x"}]}, [FoundImage(url=LINK, revised_prompt="x")]),
        ({"images": [{"image_base64": BLOB}]}, [FoundImage(BLOB)]),
        ({"images": [{"b64": BLOB}]}, [FoundImage(BLOB)]),
        ({"urls": [LINK]}, [FoundImage(url=LINK)]),
        # The newest place that holds any image is the one that is read.
        (
            {"result": {"data": [{"url": LINK}], "urls": ["https://old"]}, "data": [{"b64_json": BLOB}]},
            [FoundImage(url=LINK)],
        ),
        ({"result": {"data": [], "urls": [LINK]}}, [FoundImage(url=LINK)]),
        ({"result": {"data": [{}]}, "data": [{"b64_json": BLOB}]}, [FoundImage(BLOB)]),
        # Nothing of this is an image.
        ({"data": []}, []),
        ({"data": [{"b64_json": EMPTY}]}, []),
        ({"data": [{"b64_json": "not decoded"}]}, []),
        ({"data": [{"url": "ftp://files.example/1"}]}, []),
        ({"data": [{"url": ""}]}, []),
        ({"data": "none"}, []),
        ({"result": "done"}, []),
        ({}, []),
        # Undocumented places.
        ([{"url": LINK}], [FoundImage(url=LINK)]),
        ({"url": LINK, "revised_prompt": "x"}, [FoundImage(url=LINK, revised_prompt="x")]),
        ({"b64_json": BLOB}, [FoundImage(BLOB)]),
        ({"output": [{"result": BLOB}, {"result": OTHER}]}, [FoundImage(BLOB), FoundImage(OTHER)]),
        ({"output": {"preview": OTHER, "picture": BLOB}, "input_images": [OTHER]}, [FoundImage(BLOB)]),
        ({"task_id": "t1", "image": LINK}, []),
        (None, []),
    ],
)
def test_images_are_found_in_every_shape(document: Any, images: list[FoundImage]) -> None:
    """Each documented shape, each older one and each drift that was seen gives its images in order."""
    assert find_images(document) == images


LONG = "x" * 5000


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "m", "type": "t", "code": "c", "param": "p"}, ("c", "t", "m", "p")),
        ({"message": "m", "code": 503}, ("503", None, "m", None)),
        ({"message": "m", "code": 0}, ("0", None, "m", None)),
        ({"message": "m", "code": None, "type": ""}, (None, None, "m", None)),
        ({"message": "m", "code": {"a": 1}}, ("{'a': 1}", None, "m", None)),
        ({"message": "m", "code": True, "param": ["size"]}, ("True", None, "m", "['size']")),
        ({"message": None, "code": "c"}, ("c", None, "", None)),
        ({"message": ["m", "n"]}, (None, None, "['m', 'n']", None)),
        ({"message": 5}, (None, None, "5", None)),
        ({"message": LONG, "code": LONG, "param": LONG}, (LONG[:100], None, LONG[:2000], LONG[:100])),
        ("plain words", (None, None, "plain words", None)),
        (LONG, (None, None, LONG[:2000], None)),
        ("", None),
        ({}, None),
        (None, None),
        (False, None),
        ([], None),
    ],
)
def test_errors_are_read_whatever_their_types(error: Any, expected: tuple[Any, ...] | None) -> None:
    """Relays answer codes of any type; none of them breaks the reading, and none is endless."""
    assert find_error({"error": error}, Mask()) == expected


@pytest.mark.parametrize("document", [None, [], "error", 5, {}, {"message": "no error object"}])
def test_other_bodies_are_no_vendors_error(document: Any) -> None:
    """Only an error object proves that the vendor itself spoke."""
    assert find_error(document, Mask()) is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "input_tokens": 1,
                "output_tokens": 2,
                "total_tokens": 3,
                "input_tokens_details": {"text_tokens": 4, "image_tokens": 5},
            },
            TokenUsage(1, 2, 3, 4, 5),
        ),
        ({"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}, TokenUsage(1, 2, 3)),
        ({"input_tokens": 1, "output_tokens": 2}, None),
        ({"input_tokens": 1, "output_tokens": 2, "total_tokens": "3"}, None),
        ({"input_tokens": 1, "output_tokens": 2, "total_tokens": -3}, None),
        ({"input_tokens": 1, "output_tokens": 2, "total_tokens": True}, None),
        ({"input_tokens": 1, "output_tokens": 2, "total_tokens": 2.5}, None),
        (
            {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "input_tokens_details": {"text_tokens": "4"}},
            TokenUsage(1, 2, 3),
        ),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_is_whole_or_absent(usage: Any, expected: TokenUsage | None) -> None:
    """Token counts are passed on when they are counts, and never made up."""
    assert find_usage({"usage": usage}) == expected
    assert find_usage(usage) is None


def failure_of(reply: Reply) -> Failure:
    with pytest.raises(CallFailed) as caught:
        read_answer(reply)
    return caught.value.failure


POLICY = {"error": {"message": "no", "code": "content_policy", "type": "t", "param": "prompt"}}


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (
            Reply(400, POLICY, retry_after=2.0),
            Failure("status", 400, True, "content_policy", "t", "no", "prompt", retry_after=2.0),
        ),
        (Reply(200, POLICY), Failure("body", 200, True, "content_policy", "t", "no", "prompt")),
        (
            Reply(200, POLICY | {"data": [{"url": LINK}]}),
            Failure("body", 200, True, "content_policy", "t", "no", "prompt"),
        ),
        (Reply(502, None, "text/html, not readable"), Failure("status", 502, message="text/html, not readable")),
        (Reply(500, {"detail": "x"}), Failure("status", 500, message="x")),
        (Reply(400, {"message": "x", "code": 7}), Failure("status", 400, code="7", message="x")),
        (Reply(422, {"detail": [{"msg": "a"}, {"msg": "b"}]}), Failure("status", 422, message="a; b")),
        (Reply(400, {"detail": {"message": "x", "param": "n"}}), Failure("status", 400, message="x", param="n")),
        (
            Reply(400, {"title": "Bad", "status": 400, "type": "about:blank"}),
            Failure("status", 400, type="about:blank", message="Bad"),
        ),
        (Reply(400, {"errors": ["a", {"message": "b"}]}), Failure("status", 400, message="a; b")),
        (
            Reply(403, None, "a page of HTML: Denied", is_page=True),
            Failure("status", 403, message="a page of HTML: Denied", is_page=True),
        ),
        (Reply(307, {}, leads_to="https://x.example"), Failure("status", 307, leads_to="https://x.example")),
        (Reply(200, {"message": "success", "data": []}), Failure("body", 200, message="no image in it")),
        (Reply(302, {"data": [{"url": LINK}]}), Failure("status", 302)),
        (Reply(200, None, "text/html, not readable"), Failure("body", 200, message="text/html, not readable")),
        (Reply(200, {"data": []}), Failure("body", 200, message="no image in it")),
    ],
)
def test_answers_without_images_state_facts(reply: Reply, failure: Failure) -> None:
    """An error by its status, an error inside a 2xx, and a 2xx without an image are three different facts."""
    assert failure_of(reply) == failure


def test_good_answer_is_read() -> None:
    """Images and usage of a 2xx of any number."""
    assert read_answer(Reply(201, {"data": [{"b64_json": BLOB}], "error": None})) == UpstreamAnswer(
        (FoundImage(BLOB),), None
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(BLOB) | st.just(LINK),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "result", "url", "b64_json", "error", "code", "message", "usage", "images"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from([200, 202, 400, 500]), JSON)
def test_any_answer_is_an_answer_or_a_failure(status: int, document: Any) -> None:
    """Whatever JSON comes back: images, or a failure with a phase; never another exception."""
    try:
        answer = read_answer(Reply(status, document))
    except CallFailed as failed:
        assert (failed.failure.phase == "body") == (status < 300)  # noqa: PT017 (both ends are right here)
    else:
        assert answer.images
        assert all((found.blob is None) != (found.url is None) for found in answer.images)


@dataclass
class Answers:
    """A line that answers every request with one reply."""

    reply: Reply

    def __post_init__(self) -> None:
        self.target = target("apiany")

    async def ask(self, *_: Any) -> Reply:
        return self.reply

    async def pay(self, *_: Any) -> Reply:
        return self.reply


def apiany(reply: Reply) -> Apiany:
    return Apiany(cast(UpstreamClient, Answers(reply)), cast(PictureConverter, None))


async def poll(document: Any, status: int = 200) -> UpstreamAnswer | None:
    return await apiany(Reply(status, document)).poll(Ticket("t1", "/v1/tasks/t1"), SPOOL)


async def poll_failure(document: Any, status: int = 200) -> Failure:
    with pytest.raises(CallFailed) as caught:
        await poll(document, status)
    return caught.value.failure


RESULT = {"result": {"data": [{"url": LINK}]}}


@pytest.mark.parametrize("word", ["completed", "succeeded", "success", "succeed", "done", "finished", "COMPLETED"])
async def test_every_word_for_done_is_known(word: str) -> None:
    """Each word of this family of services for success brings the images."""
    assert await poll({"status": word, **RESULT}) == UpstreamAnswer((FoundImage(url=LINK),))
    assert (await poll_failure({"status": word})).phase == "body"


@pytest.mark.parametrize("word", ["failed", "failure", "fail", "error", "cancelled", "canceled", "rejected", "Failed"])
async def test_every_word_for_failed_is_known(word: str) -> None:
    """Each word for failure ends the task, with the vendor's code or else the word."""
    assert await poll_failure({"status": word}) == Failure("task", spoke=True, code=word.lower())
    error = {"error": {"code": "image_safety", "message": "no", "type": "t"}}
    assert await poll_failure({"status": word, **error, **RESULT}) == Failure(
        "task", spoke=True, code="image_safety", type="t", message="no"
    )


@pytest.mark.parametrize("word", ["expired", "timeout"])
async def test_expired_task_keeps_its_meaning(word: str) -> None:
    """An expired task may have been billed, whatever code it brings along."""
    assert (await poll_failure({"status": word, "error": {"code": "x", "message": "late"}})).code == "expired"


@pytest.mark.parametrize("word", ["pending", "processing", "queued", "thinking", "", 3, None])
async def test_any_other_word_runs_on(word: Any) -> None:
    """A word nobody knows means that the task still runs: giving up would throw a paid picture away."""
    assert await poll({"status": word}) is None
    assert await poll({"status": word, "error": None, "result": None}) is None


async def test_images_without_status_are_done() -> None:
    """An answer that only holds images has ended."""
    assert await poll(RESULT) == UpstreamAnswer((FoundImage(url=LINK),))


@pytest.mark.parametrize(
    ("status", "document", "phase"),
    [(404, POLICY, "status"), (502, None, "status"), (200, None, "status"), (200, [], "status"), (200, POLICY, "body")],
)
async def test_unreadable_poll_is_no_end(status: int, document: Any, phase: str) -> None:
    """A poll that fails says so; only a task that says it failed has failed."""
    assert (await poll_failure(document, status)).phase == phase


CALL = Call("c1", (0,), "generation", "a fox", Sent())


@pytest.mark.parametrize(
    ("document", "ticket"),
    [
        ({"task_id": "t1", "status": "pending", "poll_url": "/v1/tasks/t1"}, Ticket("t1", "/v1/tasks/t1")),
        ({"task_id": "t1"}, Ticket("t1", "/v1/tasks/t1")),
        ({"task_id": 17}, Ticket("17", "/v1/tasks/17")),
        ({"task_id": "t1", "poll_url": "https://evil.example/v1/jobs/t1?x=1"}, Ticket("t1", "/v1/jobs/t1")),
        ({"task_id": "t1", "poll_url": "https://evil.example/steal"}, Ticket("t1", "/v1/tasks/t1")),
        ({"task_id": "t1", "poll_url": "/v1/../admin"}, Ticket("t1", "/v1/tasks/t1")),
        ({"task_id": "t1", "poll_url": 5}, Ticket("t1", "/v1/tasks/t1")),
        ({"task_id": "t1", "poll_url": "http://[bad"}, Ticket("t1", "/v1/tasks/t1")),
        ({"task_id": "t1", "poll_url": "http://x:99999999/v1/jobs/t1"}, Ticket("t1", "/v1/tasks/t1")),
        ({"task_id": "t1", "poll_url": "/v1/jobs/\x00\n"}, Ticket("t1", "/v1/tasks/t1")),
        ({"task_id": "t1", "poll_url": "/v1/" + "a" * 70_000}, Ticket("t1", "/v1/tasks/t1")),
        ({"task_id": "t" * 70_000}, Ticket("t" * 70_000, "/v1/tasks/" + "t" * 70_000)),
        ({"task_id": "a/../b?c"}, Ticket("a/../b?c", "/v1/tasks/a%2F..%2Fb%3Fc")),
        ({"task_id": "t1", "error": {}, "result": {}}, Ticket("t1", "/v1/tasks/t1")),
    ],
)
async def test_ticket_is_kept(document: Any, ticket: Ticket) -> None:
    """A submission that was accepted is a ticket, and its polls stay at the configured origin."""
    for status in (200, 201, 202):
        assert await apiany(Reply(status, document)).submit(CALL, Inputs(), SPOOL) == ticket


@pytest.mark.parametrize("inputs", [Inputs(), Inputs((picture(),), picture())])
async def test_images_at_once_are_taken(inputs: Inputs) -> None:
    """An answer that holds the images already needs no polling, on either endpoint."""
    answer = await apiany(Reply(200, {"task_id": "t1", **RESULT})).submit(CALL, inputs, SPOOL)
    assert answer == UpstreamAnswer((FoundImage(url=LINK),))


@pytest.mark.parametrize(
    ("status", "document"), [(400, {"task_id": "t1"}), (202, {"task_id": True}), (202, {"task_id": ""})]
)
async def test_refused_submission_is_no_ticket(status: int, document: Any) -> None:
    """No ticket without an accepted task."""
    with pytest.raises(CallFailed):
        await apiany(Reply(status, document)).submit(CALL, Inputs(), SPOOL)
