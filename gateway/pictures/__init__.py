"""The bytes of pictures: the spool, base64 in streamed JSON, probing, conversion, metadata."""
