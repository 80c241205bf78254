"""Where the episodes of a step come from: sampled here, by Ray workers, or read from a
file.
"""
