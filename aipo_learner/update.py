"""One optimiser step on a batch of rows; the gradient does not depend on how rows are split."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aipo_env import PolicyError
from aipo_learner.batch import Batch, Row, collate, split_rows
from aipo_learner.config import TrainConfig
from aipo_learner.objective import (
    agent_normalizer,
    aipo_loss,
    merge_metrics,
    policy_normalizer,
    summarize,
)
from aipo_learner.policy import token_logprobs


def update(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[Row],
    config: TrainConfig,
    *,
    pad_token_id: int,
    reference: PreTrainedModel | None = None,
) -> dict[str, float]:
    """Make `updates_per_step` optimiser steps on `rows`; return the telemetry of the first.

    The first pass is made at the rollout's weights, so its log-probabilities are the old ones.
    """
    batches = [collate(part, pad_token_id) for part in split_rows(rows, config.microbatch_tokens)]
    z_policy = sum(policy_normalizer(batch.policy_mask, config.objective) for batch in batches)
    z_agent = sum(agent_normalizer(batch.agent_mask, batch.advantages, config.objective) for batch in batches)
    references = [_reference_logprobs(reference, batch, config) for batch in batches]
    old: list[Tensor] = []
    telemetry: dict[str, float] = {}
    for number in range(config.updates_per_step):
        optimizer.zero_grad(set_to_none=True)
        parts, entropy_sum = [], 0.0
        for index, batch in enumerate(batches):
            logprobs, entropy = token_logprobs(model, batch, temperature=config.temperature)
            if number == 0:
                old.append(logprobs.detach())
            loss, metrics = aipo_loss(
                logprobs,
                old[index],
                batch.advantages,
                batch.policy_mask,
                batch.agent_mask,
                config.objective,
                agent_logprobs=batch.agent_logprobs,
                sampler_logprobs=batch.sampler_logprobs,
                ref_logprobs=references[index],
                policy_normalizer=z_policy,
                agent_normalizer=z_agent,
            )
            loss.backward()
            parts.append(metrics)
            entropy_sum += entropy[batch.policy_mask].sum().item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        if not norm.isfinite():
            raise PolicyError(
                f"the gradient is not finite (norm {norm.item()}); the weights were left as they are. Lower lr or "
                "max_grad_norm; the last checkpoint is whole."
            )
        optimizer.step()
        if number == 0:
            telemetry = summarize(merge_metrics(parts)) | {"grad_norm": norm.item()}
            telemetry["entropy"] = entropy_sum / max(1.0, telemetry["policy_tokens"])
    return telemetry


@torch.no_grad()
def _reference_logprobs(
    reference: PreTrainedModel | None, batch: Batch, config: TrainConfig
) -> Tensor | None:
    if reference is None:
        return None
    return token_logprobs(reference, batch, temperature=config.temperature)[0]
