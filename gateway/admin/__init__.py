"""The admin API: keys, teams, limits, money and its history, for operators.

Included by `app` where GATEWAY_ADMIN_TOKEN is set. Knows HTTP; what it does is done by `gateway.store`.
"""
