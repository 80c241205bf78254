"""The policy as a torch model: loading, saving, adapters, its forward pass, and its
copies on several ranks.
"""
