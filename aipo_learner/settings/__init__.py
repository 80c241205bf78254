"""What a run may be told: a part for each stage, checked when it is made; imports
neither torch nor transformers.
"""
