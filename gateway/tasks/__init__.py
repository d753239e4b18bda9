"""Tasks: opened, joined by retries, waited for, answered, recorded, and reported by webhook."""
