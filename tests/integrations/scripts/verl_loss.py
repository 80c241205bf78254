"""The loss in verl's own FSDP2 engine against one whole-batch loss on the same rows.

Prints, for each objective, how far the engine's gradient is from that of the loss,
relative to its length. Under torchrun each process has half of the rows.
"""

import json
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import verl_engine

verl_engine.prepare()

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from tensordict import TensorDict  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402

from aipo_env import build_scenario, run_sync  # noqa: E402
from aipo_learner import (  # noqa: E402
    HFSampler,
    LearnerForward,
    ObjectiveConfig,
    TrainConfig,
    agent_free_rows,
    agent_normalizer,
    aipo_loss,
    by_group,
    collate,
    load_policy,
    microbatch_logprobs,
    policy_folder,
    policy_normalizer,
    training_rows,
)
from aipo_learner.integrations.verl import aipo_verl_loss  # noqa: E402
from aipo_learner.integrations.verl.rows import row_fields  # noqa: E402
from aipo_learner.learn.rows import Microbatch, Row  # noqa: E402
from aipo_learner.rollout.sampled import play_groups  # noqa: E402

SOURCE = "toy:kinds=knowledge"
OBJECTIVES = {
    **{base: {"base": base} for base in ("grpo", "dapo", "dr_grpo", "gspo")},
    "on_policy": {"agent_rule": "on_policy"},
    "with reference and entropy": {"kl_coef": 0.1, "entropy_coef": 0.01},
}
"""By name: the settings of the objective."""
NUM_ROWS = 16
"""Of the batch, which is two microbatches of four on each of two ranks."""
MAX_TOKENS = 200
"""Of a pass, of rows of some 50 tokens."""
PAD_TOKEN_ID = 0
"""Of the tiny policy."""
OFFSET = 0.05
"""So much lower are log-probabilities of the reference than the policy's."""
CHANGE = 0.3
"""Log-probabilities at the rollout's weights differ by up to so much from the policy's.
"""
SAMPLER_GAP = 0.1
"""As above, the sampler's from those at the rollout's weights."""
SHARE_OF_KNOWN = 0.5
"""Of agents' tokens, those of which the agents' own log-probabilities are known."""


class Known(NamedTuple):
    """What is known of the tokens of a batch beside the policy's forward pass.

    Tensors are `[batch, tokens]`, in nats.
    """

    old_logprobs: torch.Tensor
    sampler_logprobs: torch.Tensor
    agent_logprobs: torch.Tensor
    ref_logprobs: torch.Tensor


def drawn(logprobs: torch.Tensor, batch: Microbatch) -> Known:
    """Return values of which no two are equal: a loss that ignores any is found out."""
    rng = torch.Generator().manual_seed(0)

    def noise(size: float) -> torch.Tensor:
        return size * (2 * torch.rand(logprobs.shape, generator=rng) - 1)

    old_logprobs = logprobs + noise(CHANGE)
    sampler_logprobs = old_logprobs + noise(SAMPLER_GAP)
    agent_logprobs = -2 * torch.rand(logprobs.shape, generator=rng)
    known = torch.rand(logprobs.shape, generator=rng) < SHARE_OF_KNOWN
    unknown = torch.full_like(logprobs, torch.nan)
    return Known(
        old_logprobs,
        torch.where(batch.policy_mask, sampler_logprobs, unknown),
        torch.where(batch.agent_mask & known, agent_logprobs, unknown),
        logprobs - OFFSET,
    )


def sampled_rows(model: Any, tokenizer: Any) -> list[Row]:
    """Return rows of aided, unaided and agent-free episodes, with advantages."""
    scenario = build_scenario(SOURCE)
    config = TrainConfig(groups_per_step=6, group_size=4, seed=5)
    sampler = HFSampler(model, tokenizer)
    playing = play_groups(config.rollouts, scenario, sampler, 0, range(6), 0)
    groups = by_group(run_sync(playing))
    # A tiny policy that is not trained is always wrong: any rewards will do.
    made = training_rows(
        groups,
        lambda episode: float(sum(episode.tokens.token_ids) % 3),
        base="grpo",
        baseline="split",
        further=lambda group, advantages: agent_free_rows(
            scenario, tokenizer, group, advantages
        ),
    )
    return made.rows[:NUM_ROWS]


def engine_rows(rows: list[Row], known: Known) -> TensorDict:
    """Return rows as verl's queue gives them to its workers."""
    of_rows = []
    for row, old, sampler, agent, ref in zip(rows, *known, strict=True):
        num_tokens = len(row.token_ids)
        row = replace(
            row,
            sampler_logprobs=sampler[:num_tokens].numpy(),
            agent_logprobs=agent[:num_tokens].numpy(),
        )
        made = row_fields(row, PAD_TOKEN_ID)
        token_ids = torch.cat([made["prompts"], made["responses"]])
        response = slice(len(made["prompts"]), len(token_ids))
        made["old_log_probs"] = old[response].contiguous()
        made["ref_log_prob"] = ref[response].contiguous()
        made["advantages"] = torch.full_like(made["old_log_probs"], row.advantage)
        made["loss_mask"] = made["response_mask"]
        made["input_ids"] = token_ids
        made["position_ids"] = torch.arange(len(token_ids))
        of_rows.append(made)
    return TensorDict(
        {
            name: torch.nested.as_nested_tensor(
                [made[name] for made in of_rows], layout=torch.jagged
            )
            for name in of_rows[0]
        },
        batch_size=len(rows),
    )


class Gradients:
    """Keeps the gradients that a worker's optimiser has for its last step."""

    def __init__(self, worker: Any) -> None:
        self.module = worker.engine.module
        self.last: dict[str, torch.Tensor] = {}
        worker.engine.optimizer.register_step_pre_hook(self._keep)

    def _keep(self, *told: Any) -> None:
        for name, weight in self.module.named_parameters():
            gradient = weight.grad
            if hasattr(gradient, "full_tensor"):
                gradient = gradient.full_tensor()
            self.last[name] = gradient.clone()


def difference(
    gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> float:
    """Return the length of the difference of two gradients, relative to the second."""
    assert gradients.keys() == expected.keys()
    for made in (gradients, expected):
        # verl tells its model which token pads, whose embedding then learns nothing.
        made["model.embed_tokens.weight"][PAD_TOKEN_ID] = 0.0
    gaps = [(gradients[name] - expected[name]).flatten() for name in expected]
    lengths = [other.flatten() for other in expected.values()]
    return float(torch.cat(gaps).norm() / torch.cat(lengths).norm())


def main() -> None:
    folder = policy_folder("tiny")
    model, tokenizer = load_policy(folder)
    model.eval()
    rows = sampled_rows(model, tokenizer)
    batch = collate(rows, PAD_TOKEN_ID)
    forward = LearnerForward(model, entropy_gradient=True)
    workers = {
        "fp32": verl_engine.engine_worker(folder),
        "bf16": verl_engine.engine_worker(folder, "bf16"),
        "packed": verl_engine.engine_worker(folder, max_tokens=MAX_TOKENS),
    }
    kept = {way: Gradients(worker) for way, worker in workers.items()}
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    told: dict[str, Any] = {
        "rows": len(rows),
        "agent_free": sum(row.is_rewritten for row in rows),
        "agent_tokens": int(batch.agent_mask.sum()),
        "num_ranks": num_ranks,
    }
    for name, settings in OBJECTIVES.items():
        objective = ObjectiveConfig(**settings, max_policy_tokens=64)
        logprobs, entropy = microbatch_logprobs(forward, batch)
        known = drawn(logprobs.detach(), batch)
        loss, metrics = aipo_loss(
            logprobs,
            known.old_logprobs,
            batch.advantages,
            batch.policy_mask,
            batch.agent_mask,
            objective,
            agent_logprobs=known.agent_logprobs,
            sampler_logprobs=known.sampler_logprobs,
            ref_logprobs=known.ref_logprobs,
            entropy=entropy,
            is_rewritten=batch.is_rewritten,
        )
        model.zero_grad()
        loss.backward()
        expected = {
            weight_name: weight.grad.clone()
            for weight_name, weight in model.named_parameters()
        }
        of_rank = slice(rank, None, num_ranks)
        data = engine_rows(rows[of_rank], Known(*(value[of_rank] for value in known)))
        tu.assign_non_tensor(
            data,
            mini_batch_size=NUM_ROWS,
            global_batch_size=NUM_ROWS,
            calculate_entropy=True,
            temperature=1.0,
            policy_normalizer=policy_normalizer(batch.policy_mask, objective),
            agent_normalizer=agent_normalizer(
                batch.agent_mask, batch.advantages, objective
            ),
        )
        of_objective: dict[str, Any] = {
            "clipped": [int(metrics["clip_count"])],
            "known_agent_tokens": int((~known.agent_logprobs.isnan()).sum()),
        }
        for way, worker in workers.items():
            worker.set_loss_fn(partial(aipo_verl_loss, config=objective))
            output = tu.get(worker.train_mini_batch(data.clone()), "metrics")
            num_passes = len(output["aipo/policy_loss"])
            sums = [sum(output[f"aipo/{part}_loss"]) for part in ("policy", "agent")]
            of_objective["clipped"].append(int(sum(output["aipo/clip_count"])))
            of_objective[way] = {
                "gradient": difference(kept[way].last, expected),
                "loss": abs(sum(sums) - float(loss)),
                "num_passes": num_passes,
                "told": abs(output["loss"][0] - float(loss)),
            }
        told[name] = of_objective
    if rank == 0:
        print(json.dumps(told))


main()
