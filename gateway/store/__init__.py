"""Redis: names, connections, clients, Lua scripts, calendar windows, the outbox and the embedded server."""
