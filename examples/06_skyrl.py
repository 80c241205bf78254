"""An environment as SkyRL-gym makes and steps it: `env_class: aipo` in a row of data.

The columns of the row beside its prompt are the `extras`. Lost on the way: authors, as
SkyRL masks all that comes back from a step and its loss takes fixed arguments; stop
strings, which are those of its config (`generator.sampling_params.stop`); and episodes
without a verdict, which end the run: a reward must be a number. An episode may have
262,144 bytes, unless the environment has limits of its own.
"""

import copy
import re
from functools import cache

import skyrl_gym
from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput

from aipo_env import TurnEnv, add_codes, with_limits


@cache
def built(environment):  # tasks and agents are shared by all rollouts
    return TurnEnv(environment=with_limits(environment), observation="messages")


class AipoTextEnv(BaseTextEnv):
    def __init__(self, env_config, extras):
        super().__init__()
        self._env = copy.copy(built(extras["environment"]))  # has its own episode
        self._index = extras["index"]
        self.max_turns = self._env.scenario.rules.max_turns

    def init(self, prompt):
        shown, self._info = self._env.reset(options={"index": self._index})
        return list(shown), {}

    def step(self, action):
        shown, reward, terminated, truncated, self._info = self._env.step(action)
        if "error" in self._info:
            raise RuntimeError(f"the episode has no verdict: {self._info['error']}")
        is_over = terminated or truncated
        new = [] if is_over else [shown[-1]]
        said = {"observations": new, "reward": reward, "done": is_over}
        return BaseTextEnvStepOutput(**said, metadata={})

    def close(self):
        self._env.close()  # the tools of an episode that was left

    def get_metrics(self):
        return {"consults": self._info["consults_used"], "turns": self._info["turn"]}


skyrl_gym.register(id="aipo", entry_point=AipoTextEnv)
row = {"environment": "toy:kinds=knowledge", "index": 0}
env = skyrl_gym.make("aipo", env_config={}, extras=row)
messages, _ = env.init([])
name, code = re.search(r"Apply (\w+) to (\d+)", messages[-1]["content"]).groups()
asked = env.step(f"<knowledge>{name}</knowledge>")
rule = re.search(r"=#(\d\d)#(\d\d);", asked["observations"][0]["content"])
answered = env.step(f"\\boxed{{{add_codes(code, ''.join(rule.groups()))}}}")
print(answered["reward"], answered["done"], env.get_metrics())
