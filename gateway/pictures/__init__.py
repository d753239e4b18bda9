"""Picture bytes: the spool, streaming JSON, probing, conversion, metadata."""
