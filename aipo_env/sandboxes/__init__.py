"""Sandboxes: where programs that a model wrote are run."""
