"""The results of a vendor endpoint: an answer in pieces, a refusal, an answer that a fault forces.

No other module writes a vendor's error shape.
"""

from dataclasses import dataclass, field

import orjson

_MARK = "\x00picture-%d\x00"


@dataclass
class Answer:
    """An HTTP answer. `pieces` are sent one after another, so that a cached picture is never copied."""

    status: int
    pieces: list[bytes]
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return sum(len(piece) for piece in self.pieces)


@dataclass(frozen=True)
class Blob:
    """Base64 text inside a JSON value, written into the answer without escapes or copies."""

    text: bytes
    prefix: bytes = b""


def answer_json(value: object, status: int = 200) -> Answer:
    """An answer whose body is `value` as JSON; a `Blob` may replace any string."""
    blobs: list[Blob] = []

    def mark(item: object) -> str:
        if not isinstance(item, Blob):
            raise TypeError(f"{type(item).__name__} has no place in an answer")
        blobs.append(item)
        return _MARK % (len(blobs) - 1)

    rest = orjson.dumps(value, default=mark, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    pieces: list[bytes] = []
    for index, blob in enumerate(blobs):
        before, _, rest = rest.partition(orjson.dumps(_MARK % index)[1:-1])
        pieces += [before + blob.prefix, blob.text]
    return Answer(status=status, pieces=[*pieces, rest])


@dataclass
class Refusal(Exception):
    """The vendor refuses. `undocumented` names the fields that no page documents, `refused` the bad values."""

    status: int
    code: object
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    undocumented: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)

    def answer(self, upstream: str) -> Answer:
        error = vendor_error(upstream, self.message, self.kind, self.code, self.param)
        answer = answer_json({"error": error}, status=self.status)
        answer.headers.update(self.headers)
        return answer


def vendor_error(upstream: str, message: str, kind: str, code: object, param: str | None = None) -> dict[str, object]:
    """The error object of a vendor; Anyfast's does not name the parameter."""
    error: dict[str, object] = {"message": message, "type": kind, "code": code}
    if upstream != "anyfast":
        error["param"] = param
    return error


class AnswerNow(Exception):
    """A fault answers instead of the endpoint."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Severed(Exception):
    """The connection is cut, so no answer is possible."""
