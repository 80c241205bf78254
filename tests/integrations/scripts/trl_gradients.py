"""The gradients of AipoGRPOTrainer against one whole-batch loss on the same episodes.

Prints, for each objective, the largest difference of a weight's gradient relative to
the largest gradient of that weight; and whether rows stayed whole when TRL shuffled and
split them. Under torchrun each process has its groups.
"""

import json
import os
import tempfile
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOConfig

from aipo_env import ConfigError, build_scenario, run_sync
from aipo_learner import (
    RECIPES,
    HFSampler,
    LearnerForward,
    ObjectiveConfig,
    TrainConfig,
    agent_free_rows,
    aipo_loss,
    batch_normalizers,
    by_group,
    collate,
    load_policy,
    microbatch_logprobs,
    policy_folder,
    training_rows,
)
from aipo_learner.integrations.trl import AipoGRPOTrainer, grpo_arguments
from aipo_learner.policy.distributed import gathered, rank, world_size
from aipo_learner.rollout.sampled import play_groups

SOURCE = "toy:kinds=knowledge"
BASES = ("grpo", "dapo", "dr_grpo", "gspo")
GROUP_SIZE, NUM_GROUPS, SEED = 8, 4, 7


class Gradients(TrainerCallback):
    """Adds up the gradients that the optimiser has for its steps."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.num_steps = 0

    def on_pre_optimizer_step(self, *told: Any, model: Any, **others: Any) -> None:
        self.num_steps += 1
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                name = name.removeprefix("module.")
                self.sums[name] = self.sums.get(name, 0) + weight.grad.detach()

    def means(self) -> dict[str, torch.Tensor]:
        return {name: total / self.num_steps for name, total in self.sums.items()}


class Watched(AipoGRPOTrainer):
    """Keeps the rows that the loss was given."""

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        self.seen = [*getattr(self, "seen", []), *row_texts(inputs)]
        return super()._compute_loss(model, inputs)


def row_texts(batch: Any) -> list[str]:
    """Return each row as text, all that belongs together in it."""
    texts = []
    for row in range(len(batch["token_ids"])):
        width = int(batch["attention_mask"][row].sum())
        masks = [
            batch[name][row][:width].tolist()
            for name in ("policy_mask", "agent_mask", "observation_mask")
            if name in batch
        ]
        if not any(map(any, masks)):
            continue  # a filler
        parts = [
            *masks,
            *(
                batch[name][row][:width].tolist()
                for name in ("token_ids", "sampler_logprobs")
            ),
        ]
        flag = bool(batch["is_rewritten"][row])
        texts.append(str([*parts, float(batch["advantages"][row]), flag]))
    return texts


def arguments(
    folder: str, objective: ObjectiveConfig, steps_per_batch: int, iterations: int
) -> GRPOConfig:
    num_passes = 2 * NUM_GROUPS // int(os.environ.get("WORLD_SIZE", 1))
    return GRPOConfig(
        output_dir=folder,
        seed=SEED,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        dataloader_pin_memory=False,
        disable_dropout=True,
        beta=objective.kl_coef,
        per_device_train_batch_size=GROUP_SIZE // 2,
        gradient_accumulation_steps=num_passes // steps_per_batch,
        steps_per_generation=num_passes,
        num_iterations=iterations,
        num_generations=GROUP_SIZE,
        max_steps=steps_per_batch * iterations,
        max_grad_norm=1e9,
        # The weights stay, so that all steps have gradients at the same ones.
        learning_rate=1e-30,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )


def trained(
    objective: ObjectiveConfig, steps_per_batch: int = 1, iterations: int = 1
) -> tuple[dict[str, torch.Tensor], list[str], dict[str, float]]:
    """Return the mean gradients of TRL's steps, the rows seen and the first log."""
    model, tokenizer = load_policy(policy_folder("tiny"))
    gradients = Gradients()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Watched(
            model,
            SOURCE,
            arguments(folder, objective, steps_per_batch, iterations),
            objective=objective,
            processing_class=tokenizer,
            callbacks=[gradients],
        )
        trainer.train()
    return gradients.means(), trainer.seen, trainer.state.log_history[0]


def expected(
    objective: ObjectiveConfig,
) -> tuple[dict[str, torch.Tensor], list[str], float]:
    """Return the gradients of the loss of the whole batch, its rows, and the loss."""
    model, tokenizer = load_policy(policy_folder("tiny"))
    model.eval()
    config = TrainConfig(
        environment=SOURCE,
        seed=SEED,
        num_steps=1,
        groups_per_step=NUM_GROUPS,
        group_size=GROUP_SIZE,
    )
    scenario = build_scenario(config.environment, seed=SEED)
    # Dr. GRPO's constant is the limit of the episodes, unless it is set.
    limit = scenario.rules.max_policy_tokens
    objective = replace(objective, max_policy_tokens=limit)
    sampler = HFSampler(model, tokenizer)
    # As the processes do: what is decoded side by side changes the last bits.
    size = NUM_GROUPS // world_size()
    groups = []
    for first in range(0, NUM_GROUPS, size):
        numbers = range(first, first + size)
        playing = play_groups(config.rollouts, scenario, sampler, 0, numbers, 0)
        groups += by_group(run_sync(playing))
    sampler.close()
    made = training_rows(
        groups,
        lambda episode: float(episode.reward),
        base=objective.base,
        baseline="split",
        further=lambda *group: agent_free_rows(
            scenario, tokenizer, *group, objective=objective
        ),
        objective=objective,
    )
    batch = collate(made.rows, tokenizer.pad_token_id)
    has_bonus = objective.entropy_coef > 0
    forward = LearnerForward(model, entropy_gradient=has_bonus)
    logprobs, entropy = microbatch_logprobs(forward, batch)
    normalizers = batch_normalizers(made.rows, objective)
    loss, _ = aipo_loss(
        logprobs,
        logprobs.detach(),
        batch.advantages,
        batch.policy_mask,
        batch.agent_mask,
        objective,
        agent_logprobs=batch.agent_logprobs,
        sampler_logprobs=batch.sampler_logprobs,
        # The reference is the policy itself: these are the first steps.
        ref_logprobs=logprobs.detach() if objective.kl_coef else None,
        entropy=entropy,
        observation_mask=batch.observation_mask,
        policy_normalizer=normalizers.policy,
        agent_normalizer=normalizers.agent,
        observation_normalizer=normalizers.observation,
    )
    loss.backward()
    weights = model.named_parameters()
    gradients = {name: weight.grad for name, weight in weights}
    names = ("token_ids", "attention_mask", "policy_mask", "agent_mask")
    fields = (*names, "sampler_logprobs", "advantages", "is_rewritten")
    tensors = {name: getattr(batch, name) for name in fields}
    if batch.observation_mask is not None:
        tensors["observation_mask"] = batch.observation_mask
    return gradients, row_texts(tensors), loss.item()


def difference(mine: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]) -> float:
    """Return the largest difference relative to the largest number of its weight."""
    assert mine.keys() == whole.keys()
    return max(
        float((mine[name] - other).abs().max() / other.abs().max())
        for name, other in whole.items()
    )


def refusal(folder: str) -> str:
    """Return what is said of arguments by which two processes halve every group."""
    args = arguments(folder, ObjectiveConfig(), 1, 1)
    args.per_device_train_batch_size = GROUP_SIZE // 2
    args.steps_per_generation = 1
    model, tokenizer = load_policy(policy_folder("tiny"))
    try:
        AipoGRPOTrainer(model, SOURCE, args, processing_class=tokenizer)
    except ConfigError as error:
        return str(error)
    return ""


def main() -> None:
    # First of all, as a user would: the processes do not know each other yet.
    toy = grpo_arguments(RECIPES["toy"](), use_cpu=True)
    told: dict[str, Any] = {"differences": {}, "losses": {}, "rows": {}}
    told["num_passes"] = toy.gradient_accumulation_steps
    objectives = {base: ObjectiveConfig(base=base, floor=0.3) for base in BASES}
    objectives["with reference and entropy"] = ObjectiveConfig(
        base="grpo", kl_coef=0.5, entropy_coef=0.1
    )
    objectives["with observations"] = ObjectiveConfig(
        base="grpo",
        agent_rule="masked",
        observation_weight=0.5,
        observation_authors=("agent",),
    )
    for name, objective in objectives.items():
        gradients, seen, logged = trained(objective)
        whole, rows, loss = expected(objective)
        told["differences"][name] = difference(gradients, whole)
        told["losses"][name] = abs(float(logged["loss"]) - loss)
        all_seen = gathered(seen)
        told["rows"][name] = [len(rows), Counter(all_seen) == Counter(rows)]
        told["was_shuffled"] = all_seen != rows
        told["agent_tokens"] = logged["agent_tokens"]
        if name == "grpo":
            # A batch in two steps, gone through twice: the second time its old
            # log-probabilities are those of the first.
            means, seen_twice, _ = trained(objective, steps_per_batch=2, iterations=2)
            told["in_four_steps"] = difference(means, whole)
            told["seen_twice"] = Counter(gathered(seen_twice)) == Counter(rows * 2)
    with tempfile.TemporaryDirectory() as folder:
        told["refusal"] = refusal(folder)
    if rank() == 0:
        print(json.dumps(told), flush=True)


torch.set_num_threads(1)
main()
