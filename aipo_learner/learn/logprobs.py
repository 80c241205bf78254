"""Log-probabilities of a padded batch: those of the tokens that the loss reads."""

from torch import Tensor
from transformers import PreTrainedModel

from aipo_learner.learn.rows import Batch
from aipo_learner.policy.forward import LearnerForward


def batch_logprobs(forward: LearnerForward, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy (nats) of each token of policy and agents.

    Both are float32 `[batch, tokens]`, 0 at all other tokens; entropy is detached,
    unless the forward pass was made with `entropy_gradient`.
    """
    # Prompts and observations are in no loss: their rows of logits are never made.
    is_read = batch.policy_mask | batch.agent_mask
    return forward(batch.token_ids, batch.attention_mask, is_read)


def token_logprobs(
    model: PreTrainedModel, batch: Batch, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return what `batch_logprobs` returns, computed in the default way."""
    return batch_logprobs(LearnerForward(model, temperature=temperature), batch)
