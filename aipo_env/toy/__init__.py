"""A small world in which help matters: exact, offline, endless, drawn from a seed."""
