"""Quota: the limits of keys, teams and everyone, the reservation of a task against them, the ledger and its audit.

`reservation` enforces the quota, `limits` and `limit_messages` describe it, `ledger` counts it in Redis.
"""
