"""Stable-Baselines3's PPO on the token environment, unchanged: every action is a token.

A policy that starts from nothing will not solve a problem in so few steps; this shows
that the loop runs.
"""

import gymnasium as gym
from stable_baselines3 import PPO

import aipo_env  # registers the environments

env = gym.make("AIPO-Toy-v0", window=64, rules={"max_policy_tokens": 32})
model = PPO("MlpPolicy", env, n_steps=128, batch_size=64, n_epochs=1, seed=0)
model.learn(total_timesteps=512)

observation, info = env.reset(seed=1)
is_over = False
while not is_over:
    action, _ = model.predict(observation)
    observation, reward, terminated, truncated, info = env.step(action)
    is_over = terminated or truncated
print(aipo_env.episode_text(info["episode_record"]))
