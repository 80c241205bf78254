"""Tokenizers of environments: between the text of a dialogue and the token ids of a
policy.
"""
