"""State that other processes need to continue a task: task and call records, task events, the webhook queue."""
