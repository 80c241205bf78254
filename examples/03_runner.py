"""Many episodes at once, in groups that share a task, as policy-gradient methods want
them.

Put a client of your own into `policy`, say an OpenAI-compatible server: any async
function will do. Limits of tokens count bytes here, unless the runner is given a
tokenizer: raise `max_policy_tokens` and `max_context_tokens` in `rules`.
"""

import asyncio
import re
from collections.abc import Sequence

from aipo_env import EpisodeRunner, Message, add_codes, build_scenario


async def policy(
    messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
) -> str:
    """Ask for the rule, then apply it."""
    transcript = "\n".join(message.content for message in messages)
    name, code = re.search(r"Apply (\w+) to (\d+)", transcript).groups()
    told = re.search(rf"{name}=#(\d\d)#(\d\d);", transcript)
    if told is None:
        return f"<knowledge>{name}</knowledge>"
    return f"\\boxed{{{add_codes(code, ''.join(told.groups()))}}}"


async def main() -> None:
    scenario = build_scenario("toy:kinds=knowledge", pool={"concurrency": 16})
    runner = EpisodeRunner(scenario, policy, concurrency=32, group_size=4, seed=7)
    async for group in runner.groups(8):
        rewards = [episode.reward for episode in group.episodes]
        print(group.task.id, rewards if group.is_whole else "not whole")


asyncio.run(main())
