"""How agents are asked: limits, budgets, retries, and replies kept on disk."""
