"""Agents: helpers that a policy may consult."""
