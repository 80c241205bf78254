"""The example's environment token by token, as the cookbook's training loop has it."""

import asyncio
import json
import re
import runpy
from pathlib import Path
from typing import Any

from tinker_cookbook.renderers.role_colon import RoleColonRenderer
from tinker_cookbook.rl.message_env import EnvFromMessageEnv

from aipo_env import add_codes, build_scenario

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "07_tinker.py"
END = "\n\nUser:"


class ByteTokenizer:
    """Bytes are tokens; as much of a tokenizer as the renderer uses."""

    bos_token = None
    eos_token_id = None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, token_ids: list[int]) -> str:
        return bytes(token_ids).decode()


async def main() -> dict[str, Any]:
    tokenizer: Any = ByteTokenizer()
    environment = runpy.run_path(str(EXAMPLE))["AipoMessageEnv"]
    session = build_scenario("toy:kinds=knowledge").rollout("train", 0, 0, aided=True)
    env = EnvFromMessageEnv(RoleColonRenderer(tokenizer), environment(session))
    shown, _ = await env.initial_observation()
    text = tokenizer.decode(shown.to_ints())
    name, code = re.search(r"Apply (\w+) to (\d+)", text).groups()
    call = f" <knowledge>{name}</knowledge>{END}"
    asked = await env.step(tokenizer.encode(call))
    text = tokenizer.decode(asked.next_observation.to_ints())
    rule = re.search(rf"{name}=#(\d\d)#(\d\d);", text)
    answer = f" \\boxed{{{add_codes(code, ''.join(rule.groups()))}}}{END}"
    ended = await env.step(tokenizer.encode(answer))
    no_room = {"max_context_tokens": 10}
    scenario = build_scenario("toy:kinds=knowledge", rules=no_room)
    full = environment(scenario.rollout("train", 0, 0, aided=True))
    await full.initial_observation()
    over = await full.step({"role": "assistant", "content": "Hm."})
    spans = [(span.text, int(span.author)) for span in session.messages[3].spans]
    return {
        "asked": [asked.reward, asked.episode_done],
        "ended": [ended.reward, ended.episode_done, ended.metrics],
        "over": [over.reward, over.episode_done],
        "spans": spans,
    }


print(json.dumps(asyncio.run(main())))
