"""An environment as the cookbook of Tinker plays it, message by message.

Its training loop wants `EnvFromMessageEnv(renderer, AipoMessageEnv(session))`, of an
`EnvGroupBuilder` whose `cleanup` awaits `session.close()`. Lost on the way: authors, as
Tinker's own losses have no observations in them; they stand in `session.messages`, and
reach only a loss of yours on the client's side, `forward_backward_custom`. What the
policy wrote is rendered anew each turn. The service was not used for this.
"""

import asyncio
import re

from tinker_cookbook.renderers import get_text_content
from tinker_cookbook.rl.message_env import MessageEnv, MessageStepResult

from aipo_env import TextVoice, add_codes, begin, build_scenario, take_turn, with_limits


class AipoMessageEnv(MessageEnv):
    def __init__(self, session):
        self.session = session
        self._voice = TextVoice()  # counts tokens as bytes, unless given a tokenizer

    async def initial_observation(self):
        await self.session.prepare()
        begin(self.session, self._voice)
        return self._history()

    async def step(self, message):
        if self.session.stop_reason is None:  # else its prompt was too long
            max_tokens = self.session.dialogue.token_limit()
            turn = self._voice.said(get_text_content(message), max_tokens)
            await take_turn(self.session, self._voice, turn)
        if self.session.stop_reason is None:
            return MessageStepResult(0.0, False, self._history())
        episode = self.session.episode()
        if episode.reward is None:
            raise RuntimeError(f"the episode has no verdict: {episode.verdict.reason}")
        metrics = {"consults": len(episode.consults), "turns": len(episode.turns)}
        return MessageStepResult(episode.reward, True, self._history(), metrics)

    def _history(self):
        return [{"role": m.role, "content": m.content} for m in self.session.messages]


async def main():
    scenario = build_scenario(with_limits("toy:kinds=knowledge"))  # 262,144 bytes
    env = AipoMessageEnv(scenario.rollout("train", seed=0, group=0, aided=True))
    *_, task = await env.initial_observation()
    name, code = re.search(r"Apply (\w+) to (\d+)", task["content"]).groups()
    call = {"role": "assistant", "content": f"<knowledge>{name}</knowledge>"}
    *_, reply = (await env.step(call)).next_messages
    rule = re.search(r"=#(\d\d)#(\d\d);", reply["content"])
    answer = f"\\boxed{{{add_codes(code, ''.join(rule.groups()))}}}"
    ended = await env.step({"role": "assistant", "content": answer})
    print(ended.reward, ended.episode_done, ended.metrics)


if __name__ == "__main__":
    asyncio.run(main())
