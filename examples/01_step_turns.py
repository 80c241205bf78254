"""Be the policy, turn by turn: the loop of every Gymnasium program, with text for
observations and actions.
"""

import re

import gymnasium as gym

import aipo_env  # registers the environments


def act(observation: str) -> str:
    """Ask for a rule that nobody can guess; apply it once it is told."""
    name, code = re.search(r"Apply (\w+) to (\d+)", observation).groups()
    told = re.search(rf"{name}=#(\d\d)#(\d\d);", observation)
    if told is None:
        return f"I do not know this operator. <knowledge>{name}</knowledge>"
    return f"\\boxed{{{aipo_env.add_codes(code, ''.join(told.groups()))}}}"


env = gym.make("AIPO-Toy-Turn-v0", source="toy:kinds=knowledge", render_mode="ansi")
num_correct = 0
for seed in range(3):
    observation, info = env.reset(seed=seed)
    is_over = False
    while not is_over:
        observation, reward, terminated, truncated, info = env.step(act(observation))
        is_over = terminated or truncated
    num_correct += info["episode_record"].correct
print(env.render())
print(
    f"{num_correct} of 3 correct, the last after {info['consults_used']} consultation"
)
