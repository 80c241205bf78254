"""PPO in a single file, under the shape rules that CleanRL's scripts keep to."""

import json

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

NUM_ENVS, NUM_STEPS, NUM_UPDATES, GAMMA, GAE_LAMBDA, CLIP = 4, 64, 3, 0.99, 0.95, 0.2


def make_env() -> gym.Env:
    env = gym.make("aipo_env:AIPO-Toy-v0", window=16, rules={"max_policy_tokens": 24})
    return gym.wrappers.RecordEpisodeStatistics(env)


torch.manual_seed(0)
mode = gym.vector.AutoresetMode.SAME_STEP
envs = gym.vector.SyncVectorEnv([make_env] * NUM_ENVS, autoreset_mode=mode)
assert isinstance(envs.single_action_space, gym.spaces.Discrete)
num_inputs = int(np.array(envs.single_observation_space.shape).prod())
body = nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh())
actor, critic = nn.Linear(64, int(envs.single_action_space.n)), nn.Linear(64, 1)
parameters = [*body.parameters(), *actor.parameters(), *critic.parameters()]
optimizer = torch.optim.Adam(parameters, lr=2.5e-4, eps=1e-5)
before = torch.cat([parameter.detach().flatten() for parameter in parameters])

obs = torch.zeros((NUM_STEPS, NUM_ENVS, *envs.single_observation_space.shape))
actions = torch.zeros((NUM_STEPS, NUM_ENVS, *envs.single_action_space.shape))
logprobs, rewards, dones, values = torch.zeros((4, NUM_STEPS, NUM_ENVS))
next_obs = torch.Tensor(envs.reset(seed=0)[0])
next_done = torch.zeros(NUM_ENVS)
lengths = []
for _ in range(NUM_UPDATES):
    for step in range(NUM_STEPS):
        obs[step], dones[step] = next_obs, next_done
        with torch.no_grad():
            hidden = body(next_obs / envs.single_action_space.n)
            choice = Categorical(logits=actor(hidden))
            actions[step] = action = choice.sample()
            logprobs[step], values[step] = (
                choice.log_prob(action),
                critic(hidden).flatten(),
            )
        seen, reward, terminated, truncated, infos = envs.step(action.numpy())
        rewards[step] = torch.tensor(reward)
        next_obs, next_done = (
            torch.Tensor(seen),
            torch.Tensor(np.logical_or(terminated, truncated)),
        )
        if "final_info" in infos:
            ended = infos["final_info"]["_episode"]
            lengths += infos["final_info"]["episode"]["l"][ended].tolist()

    advantages, last = torch.zeros_like(rewards), torch.zeros(NUM_ENVS)
    with torch.no_grad():
        next_value = critic(body(next_obs / envs.single_action_space.n)).flatten()
    for step in reversed(range(NUM_STEPS)):
        alive = 1 - (next_done if step == NUM_STEPS - 1 else dones[step + 1])
        after = next_value if step == NUM_STEPS - 1 else values[step + 1]
        delta = rewards[step] + GAMMA * after * alive - values[step]
        advantages[step] = last = delta + GAMMA * GAE_LAMBDA * alive * last
    returns = advantages + values

    hidden = body(obs.reshape(-1, num_inputs) / envs.single_action_space.n)
    choice = Categorical(logits=actor(hidden))
    ratio = (choice.log_prob(actions.flatten()) - logprobs.flatten()).exp()
    weight = advantages.flatten()
    policy_loss = -torch.min(
        weight * ratio, weight * ratio.clamp(1 - CLIP, 1 + CLIP)
    ).mean()
    value_loss = 0.5 * (critic(hidden).flatten() - returns.flatten()).square().mean()
    loss = policy_loss - 0.01 * choice.entropy().mean() + 0.5 * value_loss
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 0.5)
    optimizer.step()
envs.close()

moved = torch.cat([parameter.detach().flatten() for parameter in parameters]) - before
result = {
    "num_inputs": num_inputs,
    "num_outputs": actor.out_features,
    "num_episodes": len(lengths),
    "longest": max(lengths),
    "has_moved": bool(moved.abs().max() > 1e-4),
    "is_finite": bool(torch.isfinite(moved).all()),
}
print(json.dumps(result))
