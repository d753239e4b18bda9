"""One HTTP connection: its limits, the middleware, errors as answers, and the proof that an answer arrived."""
