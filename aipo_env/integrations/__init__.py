"""Our environments in libraries of others, each imported by whoever asks."""
