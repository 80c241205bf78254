"""Named runs, each a function that returns its whole configuration."""

from collections.abc import Callable
from dataclasses import replace

from aipo_learner.config import TrainConfig
from aipo_learner.objective import ObjectiveConfig


def toy() -> TrainConfig:
    """AIPO in the toy world: minutes on two cores. The settings come from docs/sweeps.md."""
    return TrainConfig(
        independence="internalised",
        anneal_from=0.8,
        num_steps=125,
        groups_per_step=12,
        lr=7e-4,
        lr_end=0.1,
        # One thread each, so that arms can run side by side: a small model gains little from a second.
        num_threads=1,
        objective=ObjectiveConfig(base="grpo", floor=0.3),
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
