"""Named runs, each a function that returns its whole configuration."""

from collections.abc import Callable
from dataclasses import replace

from aipo_learner.config import TrainConfig
from aipo_learner.objective import ObjectiveConfig


def toy() -> TrainConfig:
    """AIPO in the toy world: minutes on two cores. The settings come from docs/sweeps.md."""
    return TrainConfig(
        independence="internalised",
        num_steps=100,
        lr=1e-3,
        objective=ObjectiveConfig(base="dr_grpo", floor=0.3, agent_weight=1.0, max_policy_tokens=64),
    )


def toy_masked() -> TrainConfig:
    """The same with agents' tokens masked: consultations, but no gradient on what agents wrote."""
    config = toy()
    return replace(config, objective=replace(config.objective, agent_rule="masked"))


def toy_base() -> TrainConfig:
    """The same base algorithm without agents."""
    return replace(toy(), aided_share=0.0, agents="none")


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "toy": toy,
    "toy_masked": toy_masked,
    "toy_base": toy_base,
}
