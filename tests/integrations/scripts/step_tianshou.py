"""tianshou: a `Collector` gathers the episodes of a policy network from a
`DummyVectorEnv`.
"""

import json

import gymnasium as gym
import torch
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor

torch.manual_seed(0)
options = {"window": 16, "rules": {"max_policy_tokens": 40}}
envs = DummyVectorEnv([lambda: gym.make("aipo_env:AIPO-Toy-v0", **options)] * 2)
envs.seed(0)
net = Net(state_shape=(16,), hidden_sizes=(32,))
actor = DiscreteActor(preprocess_net=net, action_shape=envs.action_space[0].n)
policy = DiscreteActorPolicy(actor=actor, action_space=envs.action_space[0])
collector = Collector(policy, envs, VectorReplayBuffer(total_size=400, buffer_num=2))
stats = collector.collect(n_episode=4, reset_before_collect=True)

batch = collector.buffer[:]
result = {
    "num_episodes": int(stats.n_collected_episodes),
    "num_ends": int(batch.done.sum()),
    "num_steps": int(stats.n_collected_steps),
    "obs": list(batch.obs.shape),
    "num_tokens": int(batch.info["num_policy_tokens"][batch.done].sum()),
}
print(json.dumps(result))
