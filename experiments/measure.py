"""What is measured of a policy: success alone and aided, and what was lost for it."""

from typing import Any

import torch

from aipo_env import Environment, build_scenario
from aipo_learner import (
    HFSampler,
    LearnerForward,
    Scores,
    TrainConfig,
    collate,
    episode_row,
    evaluate,
    load_policy,
    microbatch_logprobs,
    policy_folder,
    split_rows,
)
from experiments.arms import Measure, World

_RETAINED_TASKS = 48
_RETAINED_SAMPLES = 4
_MICROBATCH_TOKENS = 8192


def measure(
    policy: str, start: str, config: TrainConfig, world: World, how: Measure
) -> dict[str, Any]:
    """Return what a row says of a policy.

    Args:
        policy: Its folder.
        start: That of the policy it started from.
        config: Of the run; its environment is that of the tasks.
        world: Where it was made.
        how: How much is sampled.
    """
    # With agents, whatever the method had: success aided is measured of all methods.
    environment = world.config.environment
    scenario = build_scenario(environment, seed=config.seed)
    model, tokenizer = load_policy(policy_folder(policy))
    model.eval()
    sampler = HFSampler(model, tokenizer)
    columns: dict[str, Any] = {}
    samples = {"alone": how.samples, "aided": how.aided_samples}
    for column, num_samples in samples.items():
        scores, _ = evaluate(
            sampler,
            scenario,
            num_tasks=how.tasks,
            num_samples=num_samples,
            aided=column == "aided",
            seed=config.seed,
        )
        columns[column] = counts(scores)
    columns["drift"] = drift(sampler, start, config, environment, how)
    if world.retained:
        columns["retained"] = retained(sampler, world.retained, config.seed)
    return columns


def counts(scores: Scores) -> dict[str, Any]:
    """Return how often each task was solved, as a row holds it."""
    return {
        "num_samples": scores.num_samples,
        "num_correct": scores.num_correct.tolist(),
        "bottlenecks": list(scores.bottlenecks),
        "num_truncated": scores.num_truncated,
        "num_unverified": scores.num_unverified,
    }


def retained(sampler: HFSampler, source: str, seed: int) -> dict[str, Any]:
    """Return success on tasks that the policy solved before it learnt anything."""
    scores, _ = evaluate(
        sampler,
        build_scenario(Environment.of(source), "none", seed=seed),
        num_tasks=_RETAINED_TASKS,
        num_samples=_RETAINED_SAMPLES,
        aided=False,
        seed=seed,
    )
    return counts(scores)


def drift(
    sampler: HFSampler,
    start: str,
    config: TrainConfig,
    environment: Environment,
    how: Measure,
) -> dict[str, float]:
    """Return how far a policy is from its start on plain prompts, and its entropy.

    Both are means over its own tokens, in nats: the estimate log p - log p_start of
    KL(p || p_start), which may be negative in a sample, and the entropy of the full
    distribution.
    """
    _, episodes = evaluate(
        sampler,
        build_scenario(environment, seed=config.seed),
        num_tasks=how.tasks * how.drift_samples,
        num_samples=1,
        aided=False,
        # Other samples than those that success is measured on.
        seed=config.seed + 1,
    )
    rows = [episode_row(episode, 0.0) for episode in episodes]
    before, _ = load_policy(policy_folder(start))
    before.eval()
    sums = {"kl_start": 0.0, "entropy": 0.0}
    num_tokens = 0
    pad = sampler.tokenizer.pad_token_id
    with torch.no_grad():
        for part in split_rows(rows, _MICROBATCH_TOKENS):
            batch = collate(part, pad)
            mask = batch.policy_mask
            logprobs, entropy = microbatch_logprobs(
                LearnerForward(sampler.model), batch
            )
            start_logprobs, _ = microbatch_logprobs(LearnerForward(before), batch)
            sums["kl_start"] += float((logprobs - start_logprobs)[mask].sum())
            sums["entropy"] += float(entropy[mask].sum())
            num_tokens += int(mask.sum())
    return {name: total / max(num_tokens, 1) for name, total in sums.items()}
