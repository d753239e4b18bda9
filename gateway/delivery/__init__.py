"""Paid calls: take a permit, record the call in the ledger, send it, poll its ticket, store its pictures."""
