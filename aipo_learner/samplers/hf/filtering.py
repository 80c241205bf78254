"""A token filter on the log-probabilities of a batch."""

import math

import torch
from torch import Tensor

from aipo_learner.settings.token_filter import TokenFilter


def filtered(scores: Tensor, token_filter: TokenFilter) -> Tensor:
    """Return log-probabilities in which those of tokens that are cut off are -inf.

    They are not brought to a sum of 1 again. The likeliest token always stays.

    Args:
        scores: float32[rows, vocab], log-probabilities.
        token_filter: What is cut off.
    """
    if token_filter.top_k:
        num_kept = min(token_filter.top_k, scores.shape[-1])
        # Of equally likely tokens the first stay, so that greedy decoding is one.
        places = torch.sort(scores, dim=-1, descending=True, stable=True).indices
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept.scatter_(-1, places[:, :num_kept], True)
        scores = scores.masked_fill(~kept, -math.inf)
    if token_filter.top_p < 1:
        sorted_scores, places = torch.sort(scores, dim=-1, descending=True, stable=True)
        probabilities = sorted_scores.exp().double()
        # As vLLM and transformers do, of what earlier filters left.
        probabilities /= probabilities.sum(-1, keepdim=True)
        # What the tokens before each add up to: the one that reaches the share stays.
        before = probabilities.cumsum(-1) - probabilities
        is_cut = before >= token_filter.top_p
        is_cut[:, 0] = False
        cut = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, places, is_cut)
        scores = scores.masked_fill(cut, -math.inf)
    if token_filter.min_p:
        least = scores.amax(-1, keepdim=True) + math.log(token_filter.min_p)
        scores = scores.masked_fill(scores < least, -math.inf)
    return scores
