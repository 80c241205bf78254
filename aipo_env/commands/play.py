"""The command `aipo play`."""

from tyro.conf import Positional

from aipo_env.errors import ConfigError
from aipo_env.flags import environment_named
from aipo_env.records import Split
from aipo_env.rollout.environment import Environment
from aipo_env.rollout.scenario import byte_scenario
from aipo_env.terminal import play_in_terminal


def play(
    name: Positional[str] = "AIPO-Toy-Turn-v0",
    environment: Environment = Environment(),  # noqa: B008
    split: Split = "train",
    index: int = 0,
    aided: bool = True,
) -> None:
    """Be the policy: solve a task in the terminal, with agents to consult.

    An empty line ends your turn. Programs have empty lines: in a code task a line with
    only "." ends it. Limits of tokens count bytes of UTF-8.

    Args:
        name: What is played: an id, behind "package:" if another package registers it,
            or a task source.
        environment: Single fields of it; --source, --agents and --reward for short.
        split: Training or held-out tasks.
        index: Which task.
        aided: Whether you may consult.
    """
    if index < 0:
        raise ConfigError(f"play: index={index} must not be negative.")
    scenario = byte_scenario(environment_named(name, environment))
    play_in_terminal(scenario, split=split, index=index, aided=aided)
