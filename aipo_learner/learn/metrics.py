"""Telemetry of the objective: sums of microbatches, and the means made of them."""

from collections.abc import Iterable

import torch
from torch import Tensor

Metrics = dict[str, Tensor]
"""Scalars by name: sums over tokens, and maxima by names in `_max`."""


def merge_metrics(parts: Iterable[Metrics]) -> Metrics:
    """The metrics of a batch from those of its microbatches."""
    merged: Metrics = {}
    for part in parts:
        for name, value in part.items():
            if name not in merged:
                merged[name] = value
            elif name.endswith("_max"):
                merged[name] = torch.maximum(merged[name], value)
            else:
                merged[name] = torch.add(merged[name], value)
    return merged


AGENT_FREE = "/agent_free"
"""Behind the name of a sampler's metric: that of rows in another context."""
MEANS: dict[str, tuple[str, str]] = {
    "clip_fraction": ("clip_count", "policy_tokens"),
    "ratio_mean": ("ratio_sum", "policy_tokens"),
    "kl_sampler": ("kl_sampler_sum", "sampler_tokens"),
    f"kl_sampler{AGENT_FREE}": (
        f"kl_sampler_sum{AGENT_FREE}",
        f"sampler_tokens{AGENT_FREE}",
    ),
    "kl_ref": ("kl_ref_sum", "policy_tokens"),
    "agent_p_mean": ("agent_p_sum", "agent_tokens"),
    "agent_below_floor_share": ("agent_below_floor", "agent_tokens"),
    "agent_coefficient_mean": ("agent_coefficient_sum", "agent_tokens"),
    "agent_gradient_share": ("agent_push", "push"),
    "observation_p_mean": ("observation_p_sum", "observation_tokens"),
    "observation_gradient_share": ("observation_push", "push"),
    "teacher_gap": ("teacher_gap_sum", "teacher_tokens"),
}
"""By name of the mean: the sum, and what it is divided by."""
TERMS = ("policy_loss", "agent_loss", "observation_loss")
"""The terms of the loss; a loss need not have the last."""
_PUSHES = ("agent_push", "policy_push", "observation_push")
"""What of the gradient comes from each."""
_COUNTS = ("policy_tokens", "agent_tokens", "observation_tokens", "teacher_tokens")
_REPORTED = (*TERMS, *_COUNTS, "ratio_max")
"""What is reported as it is."""


def summarize(metrics: Metrics) -> dict[str, float]:
    """Means and shares from summed metrics; a mean over nothing is left out.

    `agent_p_mean` is the policy's mean probability of agent tokens (it should rise),
    `agent_below_floor_share` the share whose p / p_agent is below `floor` (it should
    fall), `kl_sampler` k3 of KL(sampler || old), `effective_sample_size` the share (sum
    w)^2 / (n sum w^2) of the n own tokens whose truncated weights w correct for the
    sampler (1 where old and sampler agree); both are of rows in the context in which
    they were sampled, and with `/agent_free` behind the name of the others. `kl_ref` is
    k3 of KL(policy || reference), `clip_fraction`, `ratio_mean` and `ratio_max` are of
    the policy's tokens.
    `agent_gradient_share` is approximate: push * (1 - p), the gradient at the token's
    own logit, in absolute value and with weights and normalizers, summed over agent
    tokens, against the same sum over all tokens; it ignores how gradients of tokens
    cancel. `observation_p_mean` and `observation_gradient_share` are the same of
    observation tokens, where the loss has a term of them. `teacher_gap` is the mean of
    log q - log p_old, in nats, over the `teacher_tokens` that a teacher scored: minus
    an estimate of KL(old || teacher).
    """
    sums = {name: value.item() for name, value in metrics.items()}
    # Of a loss without a term of observation tokens, nothing is added.
    sums["push"] = sum(sums.get(name, 0.0) for name in _PUSHES)
    means = {
        name: sums[total] / sums[count]
        for name, (total, count) in MEANS.items()
        if sums.get(count) and total in sums
    }
    for context in ("", AGENT_FREE):
        squares = sums.get(f"sampler_weight_square_sum{context}")
        if squares:
            effective = sums[f"sampler_weight_sum{context}"] ** 2 / squares
            num_tokens = sums[f"sampler_tokens{context}"]
            means[f"effective_sample_size{context}"] = effective / num_tokens
    loss = sum(sums.get(name, 0.0) for name in TERMS)
    reported = {name: sums[name] for name in _REPORTED if name in sums}
    return {"loss": loss} | reported | means
