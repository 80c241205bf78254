"""Samplers: engines that write the policy's turns and own the list of token ids."""
