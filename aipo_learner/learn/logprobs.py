"""Log-probabilities of a microbatch: those of the tokens that the loss reads."""

from torch import Tensor

from aipo_learner.learn.rows import Microbatch
from aipo_learner.policy.forward import LearnerForward


def microbatch_logprobs(
    forward: LearnerForward, microbatch: Microbatch
) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy (nats) of each token of policy and agents.

    Both are float32 `[rows, tokens]`, 0 at all other tokens; entropy is detached,
    unless the forward pass was made with `entropy_gradient`.
    """
    # Prompts and observations are in no loss: their rows of logits are never made.
    is_read = microbatch.policy_mask | microbatch.agent_mask
    return forward(microbatch.token_ids, microbatch.attention_mask, is_read)
