"""This project's learner: whole steps of `train`, or updates alone on given rows.
Prints one JSON object.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from aipo_env import (
    AgentReply,
    AgentRequest,
    Environment,
    RuleSettings,
    Task,
    read_episodes,
)
from aipo_learner.learn.rows import Row
from aipo_learner.learn.update import update
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import load_policy
from aipo_learner.policy.runtime import prepare
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from learner_load import (
    BUDGET,
    MAX_TOKENS,
    REPLY,
    Load,
    parse_load,
    report,
    rows,
    task,
    write_policy,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content']"
    " }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{%"
    " endif %}"
)


class Librarian:
    """Replies at once."""

    agent_id = "librarian"

    async def reply(self, request: AgentRequest) -> AgentReply:
        return AgentReply(text=REPLY, tokens=20)


class Tasks:
    """Sums."""

    def num_tasks(self, split: str) -> int:
        return 1000

    def task(self, split: str, index: int) -> Task:
        return Task(id=f"t{index}", prompt=task(index), answer="1")


def whole_steps(load: Load, folder: Path) -> tuple[list[float], dict[str, float]]:
    """Run `train`; return seconds per step and counts."""
    here = f"{Path(__file__).stem}"
    is_aided = load.scene == "consulting"
    config = TrainConfig(
        policy=str(folder / "policy"),
        out=folder / "run",
        seed=load.seed,
        environment=Environment(
            source=f"{here}:Tasks",
            agents=f"{here}:Librarian" if is_aided else "none",
            rules=RuleSettings(
                max_policy_tokens=MAX_TOKENS,
                consult_budget=BUDGET,
                max_turns=BUDGET + 2,
                max_context_tokens=2048,
            ),
        ),
        independence="mixed",
        aid=f"share:{float(is_aided)}",
        anneal_from=1.0,
        num_steps=load.steps,
        groups_per_step=load.samples // load.group_size,
        group_size=load.group_size,
        num_threads=load.threads,
        checkpoint_every=10_000,
        episodes_every=10_000,
        sampler="transformers",
    )
    train(config, Console(quiet=True))
    steps = read_metrics(config.out / "metrics.jsonl")
    seconds = [row["seconds/rollouts"] + row["seconds/update"] for row in steps]
    (kept,) = (config.out / "episodes").glob("*.jsonl")
    prompts = [
        int(episode.tokens.policy_mask.argmax()) for episode in read_episodes(kept)
    ]
    counts = {
        "prompt_tokens": load.samples * statistics.mean(prompts),
        "policy_tokens": statistics.mean(row["policy_tokens"] for row in steps[1:]),
        "rollouts_s": statistics.median(row["seconds/rollouts"] for row in steps[1:]),
        "learning_s": statistics.median(row["seconds/update"] for row in steps[1:]),
    }
    return seconds, counts


def updates(load: Load, folder: Path) -> tuple[list[float], dict[str, float]]:
    """Run updates on given rows; return seconds per step and counts."""
    prepare(load.threads)
    model, _ = load_policy(str(folder / "policy"))
    forward = LearnerForward(
        model, ComputeConfig(compile_layers=model.device.type == "cuda")
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    settings = TrainConfig(group_size=load.group_size).update
    batch = []
    for number, (ids, head) in enumerate(rows(load)):
        own = np.arange(len(ids)) >= head
        nothing = np.full(len(ids), np.nan, np.float32)
        batch.append(
            Row(
                token_ids=np.array(ids),
                policy_mask=own,
                agent_mask=np.zeros(len(ids), bool),
                sampler_logprobs=nothing,
                agent_logprobs=nothing,
                advantage=1.0 if number % 2 else -1.0,
            )
        )
    seconds = []
    for _ in range(load.steps):
        start = time.perf_counter()
        update(forward, optimizer, batch, settings, pad_token_id=0)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    num_tokens = sum(len(row.token_ids) for row in batch)
    return seconds, {
        "row_tokens": num_tokens,
        "update_s": statistics.median(seconds[1:]),
    }


if __name__ == "__main__":
    load = parse_load()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_policy(folder / "policy", load, "aipo", CHAT_TEMPLATE)
        run = updates if load.scene == "update" else whole_steps
        seconds, counts = run(load, folder)
        model, _ = load_policy(str(folder / "policy"))
        report(load, seconds, counts, sum(p.numel() for p in model.parameters()))
