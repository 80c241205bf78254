"""verifiers 0.1: a `MultiTurnEnv` whose `env_response` waits for the agent;
free-running on asyncio.
"""

import asyncio
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import verifiers as vf
from openai.types.chat import ChatCompletion

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from workload import Load, clock, parse_load, report


class ConsultEnv(vf.MultiTurnEnv):
    """Answers a call after as long as the load says; a turn without a call is the
    answer.
    """

    def __init__(self, load: Load, **options: Any) -> None:
        super().__init__(**options)
        self.load, self.num_consults = load, 0

    async def env_response(self, messages: list, state: dict, **options: Any) -> list:
        await asyncio.sleep(self.load.delay_s(messages[-1]["content"]))
        self.num_consults += 1
        return [{"role": "user", "content": "It holds."}]

    @vf.stop
    async def answered(self, state: dict) -> bool:
        steps = state["trajectory"]
        return bool(steps) and "\\boxed" in steps[-1]["completion"][-1]["content"]


def client(load: Load) -> Any:
    """A client whose model costs nothing."""

    async def create(messages: list, **options: Any) -> ChatCompletion:
        text = load.turn(int(messages[0]["content"]), len(messages) // 2)
        message = {"role": "assistant", "content": text}
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": message,
            "logprobs": None,
        }
        return ChatCompletion.model_construct(
            id="1",
            created=0,
            model="scripted",
            object="chat.completion",
            choices=ChatCompletion.model_validate(
                {
                    "id": "1",
                    "created": 0,
                    "model": "scripted",
                    "object": "chat.completion",
                    "choices": [choice],
                }
            ).choices,
        )

    return SimpleNamespace(
        base_url="", chat=SimpleNamespace(completions=SimpleNamespace(create=create))
    )


def reward(completion: list, answer: str, **options: Any) -> float:
    return float(answer in completion[-1]["content"])


async def run(load: Load) -> None:
    logging.disable(logging.WARNING)
    from datasets import Dataset

    rows = Dataset.from_list(
        [{"question": str(index), "answer": "1"} for index in range(load.episodes)]
    )
    env = ConsultEnv(load, dataset=rows, rubric=vf.Rubric(funcs=[reward]))
    inputs = env.get_dataset().to_list()
    options = {
        "client": client(load),
        "model": "scripted",
        "max_concurrent": load.slots,
        "use_tqdm": False,
        "independent_scoring": True,
    }
    await env.generate(inputs[: load.slots], **options)
    env.num_consults = 0
    with clock() as measured:
        results = await env.generate(inputs, **options)
    assert results["reward"] == [1.0] * load.episodes, results["reward"][:5]
    report(load, measured, load.episodes, env.num_consults)


if __name__ == "__main__":
    asyncio.run(run(parse_load()[0]))
