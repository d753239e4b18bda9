"""A simulated Anyfast, apiany and OpenAI on one port: strict, with faults on request, a book and a log.

It follows the vendors' documentation alone, and imports nothing else of the gateway.
"""
