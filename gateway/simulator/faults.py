"""The faults of rules, one class a kind, and the moment at which each applies.

Moments: `headers` before the body is read, `before` and `after` acceptance (the book entry), `work` while
pictures are made, `answer` when the answer is sent.
"""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Moment = Literal["headers", "before", "after", "work", "answer"]
InstantShape = Literal["b64_json", "url", "data_url", "b64_data_url", "no_created", "no_usage", "with_size"]
ApianyShape = Literal[
    "b64_json",
    "result.data.url",
    "result.data.b64_json",
    "result.urls",
    "result.images.url",
    "result.images.url_list",
    "results",
    "results.url",
    "data",
]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class _Fault(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    # True when no later fault of the same moment can apply.
    ends_request: ClassVar[bool] = False
    # One fault of a group applies to a request; by default a kind is its own group.
    group: ClassVar[str | None] = None


class Status(_Fault):
    """Answer with this status. `accepted`: the submission enters the book before the error."""

    ends_request = True
    kind: Literal["status"]
    status: int = Field(ge=200, le=599)
    message: str = "The simulator fails as a rule asks."
    type: str = "server_error"
    code: str | int | None = "simulated_fault"
    html: bool = False
    empty: bool = False
    retry_after: float | str | None = None
    headers: dict[str, str] = {}
    accepted: bool = False
    refunded: bool = False
    when: Literal["headers", "before"] = "before"

    @model_validator(mode="after")
    def _is_sensible(self) -> "Status":
        if self.accepted and self.when == "headers":
            raise ValueError("nothing can be accepted before the body is read")
        return self


class Delay(_Fault):
    """Wait before or after acceptance."""

    kind: Literal["delay"]
    seconds: Seconds
    when: Literal["headers", "before", "after"] = "before"


class Hang(_Fault):
    """Never answer. The connection stays open until the client disconnects."""

    ends_request = True
    kind: Literal["hang"]
    when: Literal["headers", "before", "after"] = "before"


class Reset(_Fault):
    """Reset the TCP connection; `body`: after the status line and half the answer's body."""

    ends_request = True
    kind: Literal["reset"]
    when: Literal["headers", "before", "after", "body"] = "before"


class Truncate(_Fault):
    """Declare the whole Content-Length, send this share of the body, close."""

    group = "cut"
    kind: Literal["truncate"]
    share: float = Field(default=0.5, ge=0, lt=1)


class SlowBody(_Fault):
    """Send the body at this rate, in pieces of `chunk` bytes."""

    kind: Literal["slow_body"]
    bytes_per_second: int = Field(gt=0)
    chunk: int = Field(default=65_536, gt=0)


class Garbage(_Fault):
    """200, `application/json`, and a body that is not JSON."""

    group = "body"
    kind: Literal["garbage"]
    body: str = '{"data": [{"b64_json": "iVBORw0KGgo'


class Html(_Fault):
    """200 with a page of HTML."""

    group = "body"
    kind: Literal["html"]


class Error200(_Fault):
    """200 whose body is the vendor's error object."""

    group = "body"
    kind: Literal["error_200"]
    message: str = "The upstream channel failed."
    type: str = "upstream_error"
    code: str | int | None = "channel_failed"


class Latency(_Fault):
    """Take this long to make the pictures, in place of the configured latency."""

    kind: Literal["latency"]
    seconds: Seconds


class NoImage(_Fault):
    """A successful answer without pictures: an empty list, items without any, null, or no list."""

    kind: Literal["no_image"]
    data: Literal["empty", "items", "null", "absent"] = "empty"


class Fewer(_Fault):
    """Make this many fewer pictures than requested."""

    kind: Literal["fewer"]
    by: int = Field(default=1, ge=1)


class WrongSize(_Fault):
    """Make pictures of this size, whatever the request."""

    kind: Literal["wrong_size"]
    size: str = Field(pattern=r"^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$")


class WrongFormat(_Fault):
    """Make pictures of this format, whatever the request."""

    kind: Literal["wrong_format"]
    format: Literal["png", "jpeg", "webp"] = "jpeg"


class BrokenImage(_Fault):
    """Answer with bytes that begin like a picture but are not one."""

    kind: Literal["broken_image"]


class Pad(_Fault):
    """Pad each picture to this many bytes, drawn once for each size and format and then reused."""

    kind: Literal["pad"]
    bytes: int = Field(ge=0, le=100_000_000)


class Policy(_Fault):
    """Refuse for policy. `at_submission`: apiany refuses before a task exists; the others always do."""

    group = "ending"
    kind: Literal["policy"]
    at_submission: bool = True
    code: str | None = None


class TaskFailed(_Fault):
    """The task ends as failed."""

    group = "ending"
    kind: Literal["task_failed"]
    code: str | int | None = "generation_failed"
    message: str = "The upstream failed to make the picture."
    type: str = "upstream_error"
    refunded: bool = True


class TaskExpired(_Fault):
    """The task ends as expired."""

    group = "ending"
    kind: Literal["task_expired"]
    refunded: bool = True


class TaskNever(_Fault):
    """The task never ends."""

    group = "ending"
    kind: Literal["task_never"]


class StatusWords(_Fault):
    """The words for this task's states."""

    kind: Literal["status_word"]
    pending: str | None = None
    running: str | None = None
    done: str | None = None
    failed: str | None = None


class NoPollUrl(_Fault):
    """The submission's answer holds no `poll_url`."""

    kind: Literal["no_poll_url"]


class TaskAnswer(_Fault):
    """apiany: edits answer a task; generations answer it with `status` in place of 202."""

    kind: Literal["task_answer"]
    status: Literal[200, 201, 202] = 200


class Callback(_Fault):
    """The calls of the task's `callback_url`: how often (0: never), how late, or `early`, before the answer to the
    submission; `forged`: at another address; with another body than the task."""

    kind: Literal["callback"]
    count: int = Field(default=1, ge=0, le=10_000)
    delay: Seconds = 0
    early: bool = False
    forged: bool = False
    body: Literal["task", "claims_success", "garbage", "huge"] = "task"


class DeadLink(_Fault):
    """A picture's link is dead."""

    ends_request = True
    kind: Literal["dead_link"]
    status: Literal[403, 404, 410] = 404


class Shape(_Fault):
    """The answer in another of the shapes a vendor may use."""

    kind: Literal["shape"]
    shape: InstantShape | ApianyShape

    def fits(self, upstream: str) -> bool:
        instant = get_args(InstantShape)
        known = {"anyfast": instant, "openai": instant, "apiany": get_args(ApianyShape)}
        return self.shape in known.get(upstream, (self.shape,))


Fault = Annotated[
    Status
    | Delay
    | Hang
    | Reset
    | Truncate
    | SlowBody
    | Garbage
    | Html
    | Error200
    | Latency
    | NoImage
    | Fewer
    | WrongSize
    | WrongFormat
    | BrokenImage
    | Pad
    | Policy
    | TaskFailed
    | TaskExpired
    | TaskNever
    | StatusWords
    | NoPollUrl
    | TaskAnswer
    | Callback
    | DeadLink
    | Shape,
    Field(discriminator="kind"),
]


def moment_of(fault: Fault) -> Moment:
    """The moment at which a fault applies."""
    match fault:
        case Status():
            return "after" if fault.accepted else fault.when
        case Reset():
            return "answer" if fault.when == "body" else fault.when
        case Delay() | Hang():
            return fault.when
        case DeadLink():
            return "before"
        case Truncate() | SlowBody() | Garbage() | Html() | Error200():
            return "answer"
        case _:
            return "work"
