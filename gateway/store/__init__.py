"""Redis: names, clients, scripts, the outbox, the embedded server. No amounts, no keys, no tasks."""
