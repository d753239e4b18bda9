"""Paid calls: a place at the upstream, the mark before sending, submit, poll, collect, and the intake of pictures."""
