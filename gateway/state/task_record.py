"""What is remembered of one task: the promise, the images by slot, the end. From it alone any process can answer.

Never holds a prompt, a picture or a key's
secret. Pure.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

Status = Literal["pending", "processing", "succeeded", "failed", "canceled", "expired"]
ResponseFormat = Literal["b64_json", "url"]


_NO_NAMES: set[str] = set()


class Lean(BaseModel):
    """A frozen record, of which thousands are held at once. Which of its fields were given, it does not tell."""

    # A replica of an older version must read a record that a newer one wrote.
    model_config = ConfigDict(frozen=True, extra="ignore")

    @override
    def model_post_init(self, context: Any, /) -> None:
        # A set of the names that were given would be 700 bytes of each record. A copy takes a copy of this one.
        object.__setattr__(self, "__pydantic_fields_set__", _NO_NAMES)


class Promise(Lean):
    """What was asked, as far as an answer tells it. `size` is `auto` or as asked, `created` is unix seconds.

    `response_format` is the form in which the task's own address answers.
    """

    key: str
    key_name: str = ""
    operation: str
    model: str = ""
    n: int
    size: str = "auto"
    dropped: tuple[str, ...] = ()
    end_user: str | None = None
    created: int
    response_format: ResponseFormat = "b64_json"


class TaskImage(Lean):
    """One image: its artifact, who made it, and how it was asked for.

    `made` is the size in which the upstream made it, where that is not its own. `usage` is its whole call's, and stands
    at its last image only. `usd` is µ$, None where no price is known.
    """

    slot: int
    artifact: str
    format: str
    width: int
    height: int
    made: str | None = None
    bytes: int
    created: int
    expires: int
    upstream: str
    revised_prompt: str | None = None
    usage: dict[str, Any] | None = None
    usd: int | None = None
    quality: str | None = None
    background: str = "opaque"
    dropped: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """The size in which it is handed out."""
        return f"{self.width}x{self.height}"


class Hook(Lean):
    """A caller's address that is told of a task's end. `id` is its message's, `base_url` is where links begin."""

    id: str
    key: str
    url: str
    base_url: str


class End(Lean):
    """How a task ended. `spent` is µ$, None where a price was not known; `error` is a PublicError's facts.

    `is_unstarted`: its worker died before anything was sent, so that whoever waits may begin anew. `is_guess`: nobody
    knows what became of a call; what it really brought, should that be heard of, takes this end's place.
    """

    status: Literal["succeeded", "failed", "canceled"]
    completed: int
    calls: int = 0
    upstreams: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    usage: dict[str, Any] | None = None
    spent: int | None = 0
    error: dict[str, Any] | None = None
    is_unstarted: bool = False
    is_guess: bool = False


class TaskRecord(Lean):
    """One task as it stands."""

    id: str
    promise: Promise
    images: tuple[TaskImage, ...] = ()
    end: End | None = None

    def with_image(self, made: TaskImage) -> TaskRecord:
        others = (each for each in self.images if each.slot != made.slot)
        return self.model_copy(update={"images": tuple(sorted((*others, made), key=lambda each: each.slot))})

    def with_end(self, end: End) -> TaskRecord:
        return self.model_copy(update={"end": end})

    def status_at(self, now: float) -> Status:
        """How it stands at an instant in unix seconds; whether a running one was sent is the ledger's to know."""
        if self.end is None:
            return "processing"
        if self.end.status == "succeeded" and any(each.expires <= now for each in self.images):
            return "expired"
        return self.end.status
