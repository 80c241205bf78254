"""RLlib: one `SingleAgentEnvRunner` samples two episodes of the environment by its
id.
"""

import json

from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

options = {"window": 16, "rules": {"max_policy_tokens": 24}}
config = PPOConfig().environment("aipo_env:AIPO-Toy-v0", env_config=options)
runner = SingleAgentEnvRunner(
    config=config.env_runners(num_env_runners=0).debugging(seed=0)
)
episodes = runner.sample(num_episodes=2, random_actions=True)
runner.stop()

result = {
    "num_episodes": len(episodes),
    "is_over": [bool(episode.is_done) for episode in episodes],
    "shapes": [list(episode.get_observations(0).shape) for episode in episodes],
    "num_steps": [len(episode) for episode in episodes],
    "num_tokens": [
        int(episode.get_infos(-1)["num_policy_tokens"]) for episode in episodes
    ],
}
print(json.dumps(result))
