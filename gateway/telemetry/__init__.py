"""What operators see of the gateway from outside: its logs."""
