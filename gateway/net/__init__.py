"""HTTP requests to upstreams and to foreign URLs, multipart bodies, and the reading of text from outside."""
