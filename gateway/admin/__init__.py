"""The admin API: HTTP routes over the actions of `gateway.operations`; on when GATEWAY_ADMIN_TOKEN is set."""
