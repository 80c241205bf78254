"""A policy measured on held-out tasks, with and without its agents."""
