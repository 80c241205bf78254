"""TRL's GRPOTrainer on the same work. Prints one JSON object.

Consultations go through its environment interface; in the scene `update` its rollout
function hands out given rows, so that only scoring and learning are left.
"""

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from learner_load import (
    ANSWERS,
    BUDGET,
    MAX_TOKENS,
    REPLY,
    SYSTEM,
    Load,
    parse_load,
    report,
    rows,
    task,
    write_policy,
)


class Consulting:
    """TRL's environment: its public methods are the policy's tools."""

    def reset(self, **row: Any) -> None:
        """Begin an episode."""

    def consult(self, query: str) -> str:
        """Consult an agent.

        Args:
            query: What to ask.
        """
        return REPLY


class Clock(TrainerCallback):
    """Takes the time of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)


def reward(completions: list[Any], **row: Any) -> list[float]:
    """1 for the right answer; in the scene `update`, by chance."""
    texts = [
        c if isinstance(c, str) else c[-1].get("content") or "" for c in completions
    ]
    return [
        float(ANSWERS[0] in text or (ANSWERS[1] not in text and random.random() < 0.5))
        for text in texts
    ]


def given_rows(load: Load) -> Any:
    """Return a rollout function that hands out the load's rows."""
    given = rows(load)

    def rollout(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        return {
            "prompt_ids": [ids[:head] for ids, head in given],
            "completion_ids": [ids[head:] for ids, head in given],
            "logprobs": None,
        }

    return rollout


def main(load: Load, folder: Path) -> None:
    """Train a few steps and report."""
    torch.set_num_threads(load.threads)
    random.seed(load.seed)
    template = Path(trl.__file__).parent / "chat_templates/qwen2_5.jinja"
    write_policy(folder / "policy", load, "trl", template.read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(
        folder / "policy", trust_remote_code=False
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder / "policy", dtype=torch.float32, trust_remote_code=False
    )
    num_weights = sum(p.numel() for p in model.parameters())
    on_gpu = torch.cuda.is_available()
    config = GRPOConfig(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=load.samples if not on_gpu else 2 * load.group_size,
        gradient_accumulation_steps=(
            1 if not on_gpu else load.samples // (2 * load.group_size)
        ),
        num_generations=load.group_size,
        max_completion_length=MAX_TOKENS if load.scene != "update" else load.row_tokens,
        max_tool_calling_iterations=BUDGET,
        max_steps=load.steps,
        learning_rate=1e-6,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        seed=load.seed,
    )
    questions = [
        {
            "prompt": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": task(index)},
            ]
        }
        for index in range(1000)
    ]
    clock = Clock()
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(questions),
        processing_class=tokenizer,
        callbacks=[clock],
        environment_factory=Consulting if load.scene == "consulting" else None,
        rollout_func=given_rows(load) if load.scene == "update" else None,
    )
    trainer.train()
    steps = [
        row for row in trainer.state.log_history if "completions/mean_length" in row
    ]
    num_policy_tokens = (
        statistics.mean(row["completions/mean_length"] for row in steps[1:])
        * load.samples
    )
    num_tokens = (steps[-1]["num_tokens"] - steps[0]["num_tokens"]) / (len(steps) - 1)
    counts: dict[str, float] = {
        "prompt_tokens": num_tokens - num_policy_tokens,
        "policy_tokens": num_policy_tokens,
    }
    if load.scene == "update":
        num_tokens = sum(len(ids) for ids, _ in rows(load))
        counts = {
            "row_tokens": num_tokens,
            "update_s": statistics.median(clock.seconds[1:]),
        }
    report(load, clock.seconds, counts, num_weights)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(parse_load(), Path(scratch))
