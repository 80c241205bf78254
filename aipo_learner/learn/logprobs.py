"""Log-probabilities of a microbatch: those of the tokens that the loss reads."""

from torch import Tensor

from aipo_learner.learn.rows import Microbatch
from aipo_learner.policy.forward import LearnerForward


def microbatch_logprobs(
    forward: LearnerForward, microbatch: Microbatch
) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy (nats) of each token that the loss reads.

    Both are float32 `[rows, tokens]`, 0 at all other tokens; entropy is detached,
    unless the forward pass was made with `entropy_gradient`.
    """
    # What is in no loss, such as prompts: its rows of logits are never made.
    return forward(
        microbatch.token_ids, microbatch.attention_mask, microbatch.read_mask
    )
