"""Multipart bodies written by hand, so that they may be wrong."""

from __future__ import annotations


def form(*parts: tuple[str, bytes], boundary: str = "b", end: bool = True) -> tuple[bytes, dict[str, str]]:
    """A multipart body from (content-disposition's parameters, content), and its header."""
    body = b"".join(part(f"form-data; {head}", content, boundary) for head, content in parts)
    if end:
        body += f"--{boundary}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


def part(disposition: str, content: bytes, boundary: str = "b") -> bytes:
    """One part, without the closing boundary; further headers may follow the disposition."""
    return f"--{boundary}\r\ncontent-disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"
