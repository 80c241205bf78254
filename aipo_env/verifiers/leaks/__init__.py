"""Whether an agent's reply gives the answer of its task away."""
