"""What operators do: keys, limits, money, reports, upstreams, webhooks. The command line and the admin API share it."""
