"""Gymnasium's own vector environments, in this process and in others, on both faces."""

import json

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv


def make_token_env() -> gym.Env:
    return gym.make("aipo_env:AIPO-Toy-v0", window=16, rules={"max_policy_tokens": 24})


def make_turn_env() -> gym.Env:
    return gym.make("aipo_env:AIPO-Toy-Turn-v0")


def token_steps(envs: VectorEnv) -> list[object]:
    """Play the same 200 steps."""
    rng = np.random.default_rng(0)
    seen = [envs.reset(seed=7)[0].tolist()]
    for _ in range(200):
        observations, rewards, terminations, truncations, infos = envs.step(
            rng.integers(260, size=3)
        )
        seen += [
            observations.tolist(),
            rewards.tolist(),
            terminations.tolist(),
            truncations.tolist(),
        ]
        seen += [infos["num_policy_tokens"].tolist()]
    envs.close()
    return seen


def turn_steps(*, in_processes: bool) -> list[object]:
    """Consult in one environment, answer in the other."""
    if in_processes:
        envs = AsyncVectorEnv([make_turn_env] * 2, shared_memory=False)
    else:
        envs = SyncVectorEnv([make_turn_env] * 2)
    prompts, _ = envs.reset(seed=7, options={"index": 0})
    actions = ("<knowledge>mele</knowledge>", "\\boxed{7623}")
    observations, rewards, terminations, _, infos = envs.step(actions)
    envs.close()
    used = infos["consults_used"].tolist()
    return [prompts[0], observations[0], rewards.tolist(), terminations.tolist(), used]


def main() -> None:
    turns = [turn_steps(in_processes=True), turn_steps(in_processes=False)]
    tokens = [
        token_steps(kind([make_token_env] * 3))
        for kind in (SyncVectorEnv, AsyncVectorEnv)
    ]
    try:
        AsyncVectorEnv([make_turn_env] * 2)
        refusal = ""
    except ValueError as error:
        refusal = str(error.__cause__)
    result = {
        "tokens_equal": tokens[0] == tokens[1],
        "num_ends": sum(map(sum, tokens[0][3::5])) + sum(map(sum, tokens[0][4::5])),
        "turns_equal": turns[0] == turns[1],
        "reply": turns[0][1].split("\n")[-1],
        "turns": turns[0][2:],
        "refusal": refusal,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
