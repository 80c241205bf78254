"""Samplers: engines that write the policy's turns and own the running list of token
ids.
"""
