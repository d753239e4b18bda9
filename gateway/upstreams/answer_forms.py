"""Answers in other forms than the documented one: server-sent events, the picture itself, a page, unknown fields.

No request asks for any of them; the pictures in them are paid for all the same.
"""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Literal

from gateway.pictures.json_stream import BadJson, JsonReader, TooLarge
from gateway.pictures.picture import sniff
from gateway.pictures.spool import Blob, Spool

AnswerForm = Literal["json", "events", "picture", "page"]

_NOT_MADE = re.compile(r"input|mask|reference|source|partial|preview|thumb|progress", re.IGNORECASE)
"""Parts of the names of fields whose pictures were sent, or are not the whole result."""

_LONGEST_NAME = 100
"""Characters of a field's name that are looked at: thousands of long names would hold up the event loop."""

_FIELD = 5
_EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_TITLE = re.compile(rb"<(title|h1)\b[^>]{0,200}>([^<]{1,300})", re.IGNORECASE)


def find_form(content_type: str, head: bytes) -> AnswerForm:
    """The form of an answer, by its first bytes if they show it, else by its Content-Type; `json` if neither does."""
    kind = content_type.partition(";")[0].strip().lower()
    start = head.lstrip()
    if start[:1] in (b"{", b"["):
        return "json"
    if sniff(head) is not None:
        return "picture"
    if start.startswith(_EVENT_STARTS) or kind == "text/event-stream":
        return "events"
    return "page" if start[:1] == b"<" or kind in ("text/html", "application/xhtml+xml") else "json"


def find_title(page: bytes) -> str:
    """The text of the first title or h1 heading of a page; "" where it has neither."""
    found = _TITLE.search(page)
    return html.unescape(" ".join(found[2].decode(errors="replace").split())) if found else ""


async def read_picture(pieces: AsyncIterator[bytes], spool: Spool, limit: int) -> dict[str, Any]:
    """Write a body that is a picture to the spool; return a document that holds the picture's Blob.

    Raises TooLarge for more than `limit` bytes, and StorageFullError.
    """
    writer = spool.writer()
    try:
        async for piece in pieces:
            if writer.size + len(piece) > limit:
                raise TooLarge("a picture", limit)
            await writer.write(piece)
        return {"data": [{"b64_json": await writer.finish()}]}
    except BaseException:
        await writer.abort()
        raise


async def read_events(pieces: AsyncIterator[bytes], new_reader: Callable[[], JsonReader]) -> Any:
    """Read an event stream and join its JSON documents. Raises BadJson if it has none, TooLarge, StorageFullError."""
    events = _Events(new_reader)
    try:
        async for piece in pieces:
            await events.feed(piece)
        await events.end_event()
    finally:
        await events.abort()
    if not events.documents:
        raise BadJson("no event in it holds JSON")
    return join_documents(events.documents)


def join_documents(documents: Sequence[Any]) -> Any:
    """Join the documents of events to one, without those of partial images.

    The result has the data of all of them, and the last `usage`, `error`, `task_id` and `status`. A single document is
    returned as it is, and the last one if all are of partial images.
    """
    whole = [one for one in documents if isinstance(one, dict) and "partial" not in str(one.get("type"))[:100]]
    if len(whole) < 2:
        return whole[0] if whole else documents[-1]
    items: list[Any] = []
    for one in whole:
        data = one.get("data")
        items += data if isinstance(data, list) else [one]
    told = {name: one[name] for one in whole for name in ("usage", "error", "task_id", "status") if one.get(name)}
    return {**told, "data": items}


def list_pictures(value: Any) -> Iterator[Blob]:
    """Yield every picture of an answer in order, except in fields whose names are those of inputs or previews."""
    if isinstance(value, Blob):
        if value.size:
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from list_pictures(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(item, str | float | int | None) and not _NOT_MADE.search(name[:_LONGEST_NAME]):
                yield from list_pictures(item)


class _Events:
    """Server-sent events (WHATWG HTML, 9.2), each of whose data is a JSON object on one line or several."""

    def __init__(self, new_reader: Callable[[], JsonReader]) -> None:
        self.documents: list[Any] = []
        self._new_reader = new_reader
        self._reader: JsonReader | None = None
        self._field = b""
        self._is_data = False

    async def feed(self, piece: bytes) -> None:
        start = 0
        while start < len(piece):
            end = piece.find(b"\n", start)
            part = piece[start : end if end >= 0 else len(piece)]
            if not self._is_data:
                head = part[: _FIELD - len(self._field)]
                self._field += head
                part = part[len(head) :]
                self._is_data = self._field == b"data:"
            if self._is_data:
                await self._write(part)
            if end < 0:
                return
            await self._end_line()
            start = end + 1

    async def end_event(self) -> None:
        """End an event, and drop an incomplete document."""
        if self._reader is not None:
            await self._try_finish()
            await self.abort()

    async def abort(self) -> None:
        if self._reader is not None:
            await self._reader.abort()
            self._reader = None

    async def _write(self, part: bytes) -> None:
        if self._reader is None:
            part = part.lstrip()
            # Others than objects are marks, such as [DONE].
            if not part.startswith(b"{"):
                return
            self._reader = self._new_reader()
        await self._reader.feed(part)

    async def _end_line(self) -> None:
        if self._is_data:
            # Some servers leave out the empty line between two events.
            await self._try_finish()
        elif not self._field.strip():
            await self.end_event()
        self._field, self._is_data = b"", False

    async def _try_finish(self) -> None:
        if self._reader is None:
            return
        try:
            document = await self._reader.finish()
        except BadJson:
            await self._reader.feed(b"\n")
            return
        self.documents.append(document)
        self._reader = None
