"""An outgoing multipart/form-data body, with a known length, that can be sent again.

It reads a file's bytes from their Blob while it sends them, and never holds a whole file.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from gateway.pictures.spool import Blob

# As browsers do (WHATWG HTML, "multipart/form-data encoding"), and the backslash too: many servers read it as an
# escape, so a name that ends in one would continue into the next parameter.
_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A", "\\": "%5C"})


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file: its field name, its file name and content type for the upstream, and its bytes."""

    name: str
    filename: str
    content_type: str
    blob: Blob


class MultipartBody:
    """A body of text fields, then files, both in the given order. Raises ValueError for a wrong content type.

    `content_type` and `content_length` are the request's headers; `chunks()` starts from the beginning at every call.
    """

    def __init__(
        self, fields: Sequence[tuple[str, str]], files: Sequence[FilePart], *, boundary: str | None = None
    ) -> None:
        # 128 random bits: a caller cannot make a picture that contains the end of a part.
        self.boundary = boundary or secrets.token_hex(16)
        self._parts: list[tuple[bytes, bytes | Blob]] = [
            (self._head(f'name="{_escape(name)}"'), value.encode()) for name, value in fields
        ]
        for part in files:
            if not part.content_type.isascii() or not part.content_type.isprintable():
                raise ValueError(f"not a content type: {part.content_type!r}")
            disposition = f'name="{_escape(part.name)}"; filename="{_escape(part.filename)}"'
            self._parts.append((self._head(disposition, part.content_type), part.blob))
        self._end = f"--{self.boundary}--\r\n".encode()

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def content_length(self) -> int:
        """Bytes of the whole body."""
        sizes = (
            len(head) + (content.size if isinstance(content, Blob) else len(content)) for head, content in self._parts
        )
        return sum(sizes) + 2 * len(self._parts) + len(self._end)

    @property
    def headers(self) -> dict[str, str]:
        """The two headers that the request needs. Because of the length, the transport does not chunk the body."""
        return {"content-type": self.content_type, "content-length": str(self.content_length)}

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body from its first byte: small parts joined, files in the spool's pieces."""
        waiting = bytearray()
        for head, content in self._parts:
            waiting += head
            if isinstance(content, Blob):
                yield bytes(waiting)
                waiting.clear()
                async with aclosing(content.chunks()) as pieces:
                    async for piece in pieces:
                        yield piece
            else:
                waiting += content
            waiting += b"\r\n"
        yield bytes(waiting) + self._end

    def _head(self, disposition: str, content_type: str | None = None) -> bytes:
        lines = [f"--{self.boundary}", f"Content-Disposition: form-data; {disposition}"]
        if content_type is not None:
            lines.append(f"Content-Type: {content_type}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _escape(text: str) -> str:
    """The name in a form that cannot end the quotes or add a header."""
    return text.translate(_ESCAPES)
