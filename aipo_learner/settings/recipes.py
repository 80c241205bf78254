"""Named runs, each a function that returns its whole configuration."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from aipo_env import Environment, RuleSettings
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig


def toy() -> TrainConfig:
    """AIPO in the toy world: minutes on two cores. Settings are from docs/sweeps.md."""
    return TrainConfig(
        independence="internalised",
        anneal_from=0.8,
        num_steps=125,
        groups_per_step=12,
        lr=7e-4,
        lr_end=0.1,
        # So that arms can run side by side: a small model gains little from a second.
        num_threads=1,
        objective=ObjectiveConfig(base="grpo", floor=0.3),
    )


def toy_masked() -> TrainConfig:
    """The same with agents' tokens masked: it consults, but learns no agent's words."""
    config = toy()
    return replace(
        config,
        objective=replace(config.objective, agent_rule="masked"),
        # Once nobody may consult any more, hardly any group of it teaches anything:
        # that is what it shows.
        stop_after_idle_steps=0,
    )


def toy_base() -> TrainConfig:
    """The same base algorithm without agents."""
    environment = Environment(agents="none")
    # Hardly any group of this arm has both successes and failures: that is what it
    # shows.
    return replace(
        toy(), aid="share:0", environment=environment, stop_after_idle_steps=0
    )


def math_7b() -> TrainConfig:
    """Mathematics with Qwen2.5-7B-Instruct on 8 GPUs: docs/scaling.md.

    Policy, batch of 256 x 8, clip 0.2/0.28, no KL, no division by the standard
    deviation, lr 1e-6, at most 3 consultations and the agents' model are those of
    public earlier code of the paper's first author (an agentic-learning branch of an
    rllm fork, 2025), not of the paper. All else is ours.
    """
    return TrainConfig(
        policy="Qwen/Qwen2.5-7B-Instruct",
        out=Path("runs/math_7b"),
        environment=Environment(
            source="hf:dapo_math_17k",
            agents="openai:Qwen/Qwen3-30B-A3B-Instruct-2507@http://localhost:8001/v1",
            rules=RuleSettings(
                consult_budget=3, max_policy_tokens=8192, max_context_tokens=12_288
            ),
        ),
        held_out=("hf:aime_2024", "hf:aime_2025", "hf:math_500"),
        num_steps=300,
        groups_per_step=256,
        group_size=8,
        lr=1e-6,
        warmup_steps=20,
        microbatch_tokens=12_288,
        compute=ComputeConfig(gradient_checkpointing=True),
        objective=ObjectiveConfig(base="dr_grpo", clip_low=0.2, clip_high=0.28),
    )


def math_7b_lora() -> TrainConfig:
    """The same on one GPU: adapters are trained, with a batch of 32 x 8."""
    config = math_7b()
    compute = replace(config.compute, lora_rank=32)
    return replace(
        config,
        out=Path("runs/math_7b_lora"),
        groups_per_step=32,
        lr=1e-5,
        compute=compute,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (toy, toy_masked, toy_base, math_7b, math_7b_lora)
}
