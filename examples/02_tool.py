"""A typed function with a docstring is a tool: the policy calls it by name, with a JSON
object of arguments.

Tools are part of the task's world: unlike agents, they are there in deployment too.
"""

import gymnasium as gym

import aipo_env  # registers the environments


def digit_sum(code: str, times: int) -> int:
    """Sum of a code's digits, times a factor."""
    return times * sum(map(int, code))


# In a configuration, which holds no functions: tools=["my_package:digit_sum"].
env = gym.make(
    "AIPO-Toy-Turn-v0", tools=[digit_sum], agents="none", observation="delta"
)
observation, info = env.reset(seed=0)
print(observation)
for action in (
    '<digit_sum>{"code": "0808", "times": 2}</digit_sum>',
    '<digit_sum>{"code": "0808", "times": "two"}</digit_sum>',
    "\\boxed{1616}",
):
    print(">", action)
    observation, reward, terminated, truncated, info = env.step(action)
    print(observation)
print(
    [consult.reply for consult in info["episode_record"].consults],
    reward,
    info["stop_reason"],
)
aipo_env.check_tool(digit_sum, arguments={"code": "0808", "times": 2})
