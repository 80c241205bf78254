"""The objective as the loss function of verl's engines."""

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.workers.utils.padding import no_padding_2_padding

from aipo_learner.learn.objective import aipo_loss
from aipo_learner.settings.objective import ObjectiveConfig

_FIELDS = (
    "response_mask",
    "agent_mask",
    "agent_log_probs",
    "is_rewritten",
    "old_log_probs",
    "rollout_log_probs",
    "advantages",
)
"""Of a microbatch, each of which the trainer or the agent loop has written."""


def aipo_verl_loss(
    config: ObjectiveConfig,
    model_output: dict[str, Tensor],
    data: TensorDict,
    dp_group: Any = None,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a microbatch, and its metrics as sums.

    A worker is given it with the settings bound, and an engine calls it:

        workers.set_loss_fn(partial(aipo_verl_loss, config=objective))

    The engine adds the gradients of microbatches up, and takes the mean over data
    parallel ranks: the loss is that of the whole batch's normalizers, times the number
    of ranks.

    Args:
        config: The objective.
        model_output: `log_probs`, and `entropy` where `entropy_coef` is set: of all
            tokens, each that of the token after it. In bfloat16 under autocast; what
            is computed of them is float32.
        data: The rows, with the fields of `row_fields`, `old_log_probs` and
            `advantages` of each token of the response; with `ref_log_prob` where
            `kl_coef` is set. Beside them the numbers `policy_normalizer` and
            `agent_normalizer`, of the optimiser step's rows on all ranks, and verl's
            `dp_size`.
        dp_group: verl's; not used.
    """
    logprobs = no_padding_2_padding(model_output["log_probs"], data).float()
    entropy = None
    if config.entropy_coef:
        entropy = no_padding_2_padding(model_output["entropy"], data).float()
    fields = [*_FIELDS, *(["ref_log_prob"] if config.kl_coef else [])]
    rows = data.select(*fields).to_padded_tensor()
    policy_mask = rows["response_mask"].bool()
    # What verl fills in for tokens that nobody sampled is 0, which would be certainty.
    unknown = torch.full_like(logprobs, torch.nan)
    sampler_logprobs = torch.where(policy_mask, rows["rollout_log_probs"], unknown)
    ref_logprobs = rows["ref_log_prob"].float() if config.kl_coef else None
    loss, metrics = aipo_loss(
        logprobs,
        rows["old_log_probs"].float(),
        rows["advantages"],
        policy_mask,
        rows["agent_mask"].bool(),
        config,
        agent_logprobs=rows["agent_log_probs"],
        sampler_logprobs=sampler_logprobs,
        ref_logprobs=ref_logprobs,
        entropy=entropy,
        is_rewritten=rows["is_rewritten"].bool().any(1),
        policy_normalizer=data["policy_normalizer"],
        agent_normalizer=data["agent_normalizer"],
    )
    sums = {f"aipo/{name}": value.item() for name, value in metrics.items()}
    return loss * data["dp_size"], sums
