"""Routing: which targets can serve a job, in which order, in how many calls. Pure."""
