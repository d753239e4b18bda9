"""Operators' actions: keys, limits, money, reports, upstreams, webhooks. The command line and the admin API share it."""
