"""What a run may be told: a part for each stage, checked when it is made.

It imports neither torch nor transformers.
"""
