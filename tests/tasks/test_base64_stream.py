"""The streamed base64 is the base64 of the whole."""

import asyncio
import base64

from hypothesis import given
from hypothesis import strategies as st

from gateway.tasks.answer import base64_chunks, base64_length


@given(st.lists(st.binary(max_size=50)))
def test_any_cut_gives_same_text(pieces):
    """However the bytes are cut, the text and its announced length are those of the whole."""

    async def feed():
        for piece in pieces:
            yield piece

    async def collect() -> bytes:
        return b"".join([text async for text in base64_chunks(feed())])

    whole = b"".join(pieces)
    text = asyncio.run(collect())
    assert text == base64.b64encode(whole)
    assert base64_length(len(whole)) == len(text)
