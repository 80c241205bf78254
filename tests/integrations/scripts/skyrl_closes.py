"""The example's environment with a tool that has a state, and an episode that is left;
prints what became of the tool, and the limits of tokens.
"""

import json
import runpy
from pathlib import Path

import gymnasium
import skyrl_gym

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "06_skyrl.py"
happened: list[str] = []


class Notebook:
    """Keeps notes."""

    def __init__(self) -> None:
        happened.append("made")

    def note(self, text: str) -> str:
        """Note a text."""
        return text

    def close(self) -> None:
        happened.append("closed")


example = runpy.run_path(str(EXAMPLE))
gymnasium.register(
    id="Mine/Noted-Turn-v0",
    entry_point="aipo_env:TurnEnv",
    kwargs={"source": "toy", "tools": [Notebook]},
)
row = {"environment": "Mine/Noted-Turn-v0", "index": 0}
env = skyrl_gym.make("aipo", env_config={}, extras=row)
env.init([])
env.close()
rules = example["built"](row["environment"]).scenario.rules
limits = [rules.max_policy_tokens, rules.max_context_tokens]
print("\n" + json.dumps({"happened": happened, "limits": limits}))
