"""The loss in verl's own FSDP2 engine against one whole-batch loss on the same rows.

Prints, for each objective, how far the engine's gradient is from that of the loss,
relative to its length. Under torchrun each process has half of the rows.
"""

import json
from functools import partial
from typing import Any

import verl_engine

verl_engine.prepare()

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from tensordict import TensorDict  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.workers.utils.padding import response_from_nested  # noqa: E402

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
from aipo_learner.learn.rows import Row  # noqa: E402
from aipo_learner.rollout.sampled import play_groups  # noqa: E402

SOURCE = "toy:kinds=knowledge"
OBJECTIVES = {
    **{base: {"base": base} for base in ("grpo", "dapo", "dr_grpo", "gspo")},
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


def engine_rows(rows: list[Row], logprobs: torch.Tensor) -> TensorDict:
    """Return rows as verl's queue gives them to its workers."""
    of_rows = []
    for row, of_row in zip(rows, logprobs, strict=True):
        made = row_fields(row, PAD_TOKEN_ID)
        num_prompt = len(made["prompts"])
        token_ids = torch.cat([made["prompts"], made["responses"]])
        known = of_row[num_prompt : len(token_ids)].contiguous()
        made["ref_log_prob"] = known - OFFSET
        made["advantages"] = torch.full_like(known, row.advantage)
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
        old = logprobs.detach()
        loss, _ = aipo_loss(
            logprobs,
            old,
            batch.advantages,
            batch.policy_mask,
            batch.agent_mask,
            objective,
            agent_logprobs=batch.agent_logprobs,
            sampler_logprobs=batch.sampler_logprobs,
            ref_logprobs=old - OFFSET,
            entropy=entropy,
            is_rewritten=batch.is_rewritten,
        )
        model.zero_grad()
        loss.backward()
        expected = {
            weight_name: weight.grad.clone()
            for weight_name, weight in model.named_parameters()
        }
        data = engine_rows(rows[rank::num_ranks], old[rank::num_ranks])
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
        of_objective = {}
        for way, worker in workers.items():
            asked = tu.assign_non_tensor(data.clone(), compute_loss=False)
            before = tu.get(worker.infer_batch(asked), "log_probs")
            # The learner's own at the rollout's weights, as verl's trainer has them.
            data["old_log_probs"] = response_from_nested(before, data["response_mask"])
            worker.set_loss_fn(partial(aipo_verl_loss, config=objective))
            output = tu.get(worker.train_mini_batch(data.clone()), "metrics")
            num_passes = len(output["aipo/policy_loss"])
            sums = [sum(output[f"aipo/{part}_loss"]) for part in ("policy", "agent")]
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
