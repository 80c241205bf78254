"""verifiers 0.1: rollouts of one consultation each, whose `env_response` asks an
endpoint by the `openai` client.

Takes the endpoint's address, how many rollouts, how many at once, and the system
prompt; prints one JSON object.
"""

import asyncio
import json
import logging
import resource
import sys
import time
from types import SimpleNamespace
from typing import Any

import openai
import verifiers as vf
from openai.types.chat import ChatCompletion


class ConsultEnv(vf.MultiTurnEnv):
    """Asks the endpoint about the first turn; the second is the answer."""

    def __init__(self, agent: openai.AsyncOpenAI, prompt: str, **options: Any) -> None:
        super().__init__(**options)
        self.agent, self.prompt, self.num_answered = agent, prompt, 0

    async def env_response(self, messages: list, state: dict, **options: Any) -> list:
        system = {"role": "system", "content": self.prompt}
        user = {"role": "user", "content": f"Claim:\n{messages[-1]['content']}"}
        said = await self.agent.chat.completions.create(
            model="tiny", messages=[system, user], max_tokens=512
        )
        self.num_answered += bool(said.choices[0].message.content)
        return [{"role": "user", "content": said.choices[0].message.content}]

    @vf.stop
    async def answered(self, state: dict) -> bool:
        steps = state["trajectory"]
        return bool(steps) and "\\boxed" in steps[-1]["completion"][-1]["content"]


async def create(messages: list, **options: Any) -> ChatCompletion:
    """Be the policy, at no cost."""
    text = "\\boxed{1}" if len(messages) > 2 else f"{messages[0]['content']} + 1 = 2"
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": None}
    head = {"id": "1", "created": 0, "model": "scripted", "object": "chat.completion"}
    return ChatCompletion.model_validate({**head, "choices": [choice]})


def reward(completion: list, answer: str, **options: Any) -> float:
    return float(answer in completion[-1]["content"])


async def run(url: str, num: int, concurrency: int, prompt: str) -> dict[str, float]:
    logging.disable(logging.WARNING)
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    rows = Dataset.from_list(
        [{"question": str(index), "answer": "1"} for index in range(num)]
    )
    async with openai.AsyncOpenAI(
        api_key="none", base_url=url, max_retries=0, timeout=600.0
    ) as agent:
        env = ConsultEnv(agent, prompt, dataset=rows, rubric=vf.Rubric(funcs=[reward]))
        inputs = env.get_dataset().to_list()
        policy: Any = SimpleNamespace(completions=SimpleNamespace(create=create))
        options = {
            "client": SimpleNamespace(base_url="", chat=policy),
            "model": "scripted",
            "max_concurrent": concurrency,
            "use_tqdm": False,
            "independent_scoring": True,
        }
        await env.generate(inputs[: min(64, num)], **options)
        env.num_answered = 0
        start, start_cpu = time.perf_counter(), time.process_time()
        await env.generate(inputs, **options)
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "answered": env.num_answered,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "peak_mb": peak_mb,
    }


if __name__ == "__main__":
    address, count, at_once, text = sys.argv[1:]
    print(json.dumps(asyncio.run(run(address, int(count), int(at_once), text))))
