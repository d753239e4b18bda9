"""Routing: the targets that can serve a job, their order, and the job's calls. Pure functions."""
