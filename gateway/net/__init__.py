"""The one way out: the HTTP transport, guarded fetches of foreign URLs, and multipart bodies."""
