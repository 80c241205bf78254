"""The worlds of the tables, each with the run that all methods share."""

from dataclasses import replace

from aipo_env import Environment
from aipo_learner import RECIPES
from experiments.arms import World
from experiments.worlds.skill import skill_rules

_SKILL_STEPS = 40
"""Steps after which the skill world's curves are flat."""
_KNOBS = "experiments.worlds.knobs:KnobsAgent"


def facts(knobs: str = "") -> World:
    """Return the toy world: rules to be remembered, a fixed set of them.

    Args:
        knobs: What is wrong with the help, as options of `KnobsAgent`: "wrong=0.3".
    """
    config = RECIPES["toy"]()
    environment = Environment(source="toy", agents=_agents(knobs))
    return World(config=replace(config, environment=environment) if knobs else config)


def skill(p0: str, knobs: str = "") -> World:
    """Return the skill world: a procedure that every problem needs anew.

    Args:
        p0: About how likely the starting policy is right at a place: "1e-1", "1e-2" or
            "1e-3".
        knobs: As of `facts`.
    """
    environment = Environment(
        source="experiments.worlds.skill:SkillSource",
        agents=_agents(knobs) if knobs else None,
        rules=skill_rules(),
    )
    config = replace(
        RECIPES["toy"](),
        policy=f"experiments/policies/skill_{p0}",
        environment=environment,
        num_steps=_SKILL_STEPS,
    )
    return World(config=config)


def _agents(knobs: str) -> str:
    return f"{_KNOBS}:{knobs}"
