"""TorchRL: `GymEnv` on both faces, the action as a number and as a one-hot vector, with
masks.
"""

import json

import torch
from torchrl.envs import ActionMask, GymEnv, TransformedEnv, check_env_specs

env = GymEnv("aipo_env:AIPO-Toy-v0", obs="dict", window=32, aided=False)
env = TransformedEnv(env, ActionMask())
env.set_seed(0)
rollout = env.rollout(max_steps=400, break_when_any_done=False)
env.close()

highest = int(rollout["action"].argmax(-1).max())
rewards = {}
for is_categorical in (True, False):
    torch.manual_seed(0)
    env = GymEnv(
        "aipo_env:AIPO-Toy-v0", window=32, categorical_action_encoding=is_categorical
    )
    env.set_seed(0)
    check_env_specs(env)
    rollout = env.rollout(max_steps=20, break_when_any_done=False)
    env.close()
    rewards[type(env.action_spec).__name__] = list(rollout["next", "reward"].shape)

env = GymEnv("aipo_env:AIPO-Toy-Turn-v0")
env.set_seed(0)
state = env.reset()
state["action"] = "<knowledge>mele</knowledge>"
reply = env.step(state)["next", "observation"]
env.close()
result = {
    "highest": highest,
    "rewards": rewards,
    "turn_spec": type(env.observation_spec["observation"]).__name__,
    "prompt": state["observation"].split("\n")[0],
    "reply": reply.split("\n")[-1],
}
print(json.dumps(result))
