"""Log-probabilities of a padded batch: those of the tokens that the loss reads."""

from torch import Tensor
from transformers import PreTrainedModel

from aipo_learner.learn.rows import Batch
from aipo_learner.policy.forward import LearnerForward


def batch_logprobs(forward: LearnerForward, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the log-probability and the entropy (nats) of every token of the policy or
    of an agent.

    Both are float32 `[batch, tokens]`, 0 at all other tokens; entropy is detached.
    """
    return forward(
        batch.token_ids, batch.attention_mask, batch.policy_mask | batch.agent_mask
    )


def token_logprobs(
    model: PreTrainedModel, batch: Batch, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return what `batch_logprobs` returns, computed in the default way."""
    return batch_logprobs(LearnerForward(model, temperature=temperature), batch)
