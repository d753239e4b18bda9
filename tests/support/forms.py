"""Multipart bodies written by hand, so that they may be wrong."""

from __future__ import annotations


def form(*parts: tuple[str, bytes], boundary: str = "b", end: bool = True) -> tuple[bytes, dict[str, str]]:
    """A multipart body from (content-disposition's parameters, content), and its header."""
    body = b"".join(
        f"--{boundary}\r\ncontent-disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    if end:
        body += f"--{boundary}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}
