"""Where the episodes of a step come from: a sampler, Ray workers, or a file."""
