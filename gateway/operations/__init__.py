"""Operators' actions: keys, limits, money, reports, upstreams, webhooks; shared by commands and the admin API."""
