"""Tokenizers of environments: between a dialogue's text and a policy's token ids."""
