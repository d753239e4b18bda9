"""One HTTP connection: limits on headers and bodies, the request id, error rendering, and proof that an answer was
handed over.
"""
