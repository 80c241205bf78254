"""Worlds in which rules for agents' tokens can be told apart."""
