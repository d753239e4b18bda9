"""The process: its settings, data folder, admission, memory, disk space and shutdown."""
