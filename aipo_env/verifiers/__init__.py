"""Verifiers: ground truth, which turns an answer into a verdict.

Not to be confused with the Verify Agent.
"""
