"""Everything kept in Redis: names, clients, the embedded server, and the records."""
