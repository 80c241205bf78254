"""From episodes to an update: advantages, rows, objective, optimiser step."""
