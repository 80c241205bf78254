"""One optimiser step on a batch of rows; the gradient does not depend on how rows are split."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aipo_env import PolicyError
from aipo_learner.learn.metrics import merge_metrics, summarize
from aipo_learner.learn.objective import agent_normalizer, aipo_loss, policy_normalizer
from aipo_learner.learn.rows import Batch, Row, collate, split_rows
from aipo_learner.policy.distributed import gathered, share_passes, whole, world_size
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.settings.train import TrainConfig


def update(
    forward: LearnerForward,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[Row],
    config: TrainConfig,
    *,
    pad_token_id: int,
    reference: LearnerForward | None = None,
) -> dict[str, float]:
    """Make `updates_per_step` optimiser steps on `rows`, the same on all ranks; return the telemetry of the first.

    The first pass is made at the weights of the step's start; its log-probabilities are the old ones.
    """
    mine, idle = share_passes(
        split_rows(rows, config.microbatch_tokens, packed=forward.is_packed)
    )
    device = forward.model.device
    batches = [collate(part, pad_token_id, device) for part in mine]
    z_policy = sum(
        gathered(
            [
                policy_normalizer(batch.policy_mask, config.objective)
                for batch in batches
            ]
        )
    )
    z_agents = [
        agent_normalizer(batch.agent_mask, batch.advantages, config.objective)
        for batch in batches
    ]
    z_agent = sum(gathered(z_agents))
    batches += [collate(part, pad_token_id, device) for part in idle]
    references = [_reference_logprobs(reference, batch) for batch in batches]
    old: list[Tensor] = []
    telemetry: dict[str, float] = {}
    for number in range(config.updates_per_step):
        optimizer.zero_grad(set_to_none=True)
        metrics_of_parts, entropy_sum = [], 0.0
        for index, batch in enumerate(batches):
            logprobs, entropy = forward(batch)
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
            # FSDP2 takes the mean of the ranks' gradients; the normalizers are made for their sum.
            (loss * world_size()).backward()
            metrics_of_parts.append(
                {name: value.cpu() for name, value in metrics.items()}
            )
            entropy_sum += entropy[batch.policy_mask].sum().item()
        norm = whole(
            torch.nn.utils.clip_grad_norm_(
                forward.model.parameters(), config.max_grad_norm
            )
        )
        if not norm.isfinite():
            raise PolicyError(
                f"the gradient is not finite (norm {norm.item()}); the weights were left as they are. Lower lr or "
                "max_grad_norm; the last checkpoint is whole."
            )
        optimizer.step()
        if number == 0:
            telemetry = summarize(merge_metrics(gathered(metrics_of_parts))) | {
                "grad_norm": norm.item()
            }
            telemetry["entropy"] = sum(gathered([entropy_sum])) / max(
                1.0, telemetry["policy_tokens"]
            )
    return telemetry


@torch.no_grad()
def _reference_logprobs(
    reference: LearnerForward | None, batch: Batch
) -> Tensor | None:
    return None if reference is None else reference(batch)[0]
