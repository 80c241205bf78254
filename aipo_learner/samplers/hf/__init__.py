"""The sampler on plain transformers."""
