"""Task sources: where problems come from."""
