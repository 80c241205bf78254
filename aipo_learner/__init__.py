"""Train a policy that consults agents while it learns and does without them afterwards."""
