"""What one process is given and has: settings, data folder, admission, memory, disk space, shutdown."""
