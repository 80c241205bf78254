"""From a task to an episode: the rules, the loop of turns, and who plays."""
