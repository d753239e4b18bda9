"""Callers: API keys, operators' tokens, authentication, and the addresses of their webhooks."""
