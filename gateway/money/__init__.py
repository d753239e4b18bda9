"""Quota: the limits of keys, teams and everyone, the reservation of a task against them, the ledger and its audit.

`ledger` counts and decides in Redis. `reservation` holds and settles the price of a task. `limits` sets the limits, and
`limit_messages` explains refusals to a caller.
"""
