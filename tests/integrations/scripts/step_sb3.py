"""Stable-Baselines3: plain PPO, and MaskablePPO of sb3-contrib, which asks the
environment for its masks.
"""

import json

import gymnasium as gym
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

options = {"window": 32, "render_mode": None}
envs = make_vec_env("aipo_env:AIPO-Toy-v0", n_envs=4, env_kwargs=options)
plain = PPO("MlpPolicy", envs, n_steps=64, device="cpu").learn(256)

env = gym.make("aipo_env:AIPO-Toy-v0", obs="dict", window=32)
masked = MaskablePPO("MultiInputPolicy", env, n_steps=128, device="cpu").learn(256)

print(json.dumps({"num_timesteps": [plain.num_timesteps, masked.num_timesteps]}))
