"""Experiments with the two packages: worlds, and what was measured in them."""
