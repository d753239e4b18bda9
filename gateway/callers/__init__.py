"""Authentication: callers' API keys, operators' tokens, and the caller behind a request."""
