"""A run on disk: its folder, checkpoints, metrics, and how it is stopped."""
