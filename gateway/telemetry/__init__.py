"""Telemetry: the gateway's logs."""
