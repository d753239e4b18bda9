"""Mistakes that no test finds, each with the reason why it changes nothing that anybody promised."""

LEDGER: dict[str, str] = {}

PYTHON: dict[str, str] = {}
