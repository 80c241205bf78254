"""Other trainers with our environments and loss, each imported by whoever asks."""
