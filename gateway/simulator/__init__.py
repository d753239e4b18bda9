"""A stand-in Anyfast, apiany and OpenAI on one port: strict, with faults on request, a book and a log.

It is written from the vendors' documentation pages alone and imports nothing else from the gateway.
"""
