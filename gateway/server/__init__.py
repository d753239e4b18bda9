"""The server processes: supervisor, workers, child processes, the listening socket, the start banner."""
