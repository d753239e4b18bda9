"""Money: quotas, budgets and limits; the reservation of a task, the ledger in Redis, and its audit."""
