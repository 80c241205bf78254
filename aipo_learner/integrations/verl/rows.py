"""Rows as verl keeps them: a prompt, and a response with the author of each token."""

import numpy as np
import torch
from torch import Tensor

from aipo_learner.learn.rows import Row

_FEWEST_TOKENS = 2
"""verl's rows have a prompt and a response, of one token or more each."""


def row_fields(row: Row, pad_token_id: int) -> dict[str, Tensor]:
    """Return the tensors of a row by the names of their fields.

    Each is `[tokens]`, of the response unless it says otherwise. What verl calls the
    prompt ends before the first token that counts. verl keeps fields of a response
    beside each other without padding, whatever is in them.

    Args:
        row: One without a token that counts gives a response in which none does.
        pad_token_id: Any id that the model knows; of the tokens that a row lacks.

    Returns:
        `prompts` (of the prompt) and `responses`, int64 token ids; `response_mask` and
        `agent_mask`, int64, 1 where the policy, and where an agent wrote;
        `rollout_log_probs` and `agent_log_probs`, float32, the sampler's of the
        policy's tokens and the agents' of theirs: NaN where it is not known, and 0
        elsewhere; `is_rewritten`, int64, as of the row.
    """
    num_missing = max(0, _FEWEST_TOKENS - len(row.token_ids))
    token_ids = np.pad(row.token_ids, (0, num_missing), constant_values=pad_token_id)
    policy_mask = np.pad(row.policy_mask, (0, num_missing))
    agent_mask = np.pad(row.agent_mask, (0, num_missing))
    is_read = policy_mask | agent_mask
    last = len(token_ids) - 1
    first = int(is_read.argmax()) if is_read.any() else last
    # The model says nothing of the first token.
    first = max(first, 1)

    def known(logprobs: np.ndarray, mask: np.ndarray) -> Tensor:
        padded = np.pad(logprobs, (0, num_missing))
        return torch.from_numpy(np.where(mask, padded, np.float32(0.0))[first:])

    of_response = slice(first, None)
    return {
        "prompts": torch.from_numpy(token_ids[:first]),
        "responses": torch.from_numpy(token_ids[of_response]),
        "response_mask": torch.from_numpy(policy_mask[of_response]).long(),
        "agent_mask": torch.from_numpy(agent_mask[of_response]).long(),
        "rollout_log_probs": known(row.sampler_logprobs, policy_mask),
        "agent_log_probs": known(row.agent_logprobs, agent_mask),
        "is_rewritten": torch.full((len(token_ids) - first,), int(row.is_rewritten)),
    }
