"""Runs of AipoGRPOTrainer that go on, that end with the tasks, in bfloat16, of LoRA."""

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from trl import GRPOConfig

from aipo_env import AipoError, Environment
from aipo_learner import RECIPES, ObjectiveConfig, load_policy, policy_folder
from aipo_learner.integrations.trl import AipoGRPOTrainer, grpo_arguments
from aipo_learner.integrations.trl.batch import generation_batch
from aipo_learner.learn.rows import Row

SOURCE = "toy:kinds=knowledge"
TINY = str(policy_folder("tiny"))


def arguments(folder: Path, **others: Any) -> GRPOConfig:
    small: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 2,
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 2,
        "warmup_steps": 0,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return grpo_arguments(RECIPES["toy"](), **(small | others))


def logged(trainer: AipoGRPOTrainer) -> list[list[float]]:
    """Return what each step says of its gradient and of its episodes."""
    names = ("loss", "grad_norm", "reward", "rows")
    rows = [row for row in trainer.state.log_history if "rows" in row]
    return [[float(row[name]) for name in names] for row in rows]


def resumed(folder: Path) -> dict[str, Any]:
    """Make four steps, and the last two again."""
    saving = arguments(folder, max_steps=4, save_strategy="steps", save_steps=2)
    whole = AipoGRPOTrainer(TINY, SOURCE, saving)
    whole.train()
    shutil.rmtree(folder / "checkpoint-4")
    again = AipoGRPOTrainer(TINY, SOURCE, saving)
    again.train(resume_from_checkpoint=True)
    return {"whole": logged(whole), "resumed": logged(again)}


class Noting(AipoGRPOTrainer):
    """Notes which batches and tasks were played."""

    def _play(self, step: int, groups: Any) -> Any:
        self.steps = [*getattr(self, "steps", []), step]
        groups = super()._play(step, groups)
        self.played = [*getattr(self, "played", []), *(g[0].task.id for g in groups)]
        return groups


def tasks_file(folder: Path, num_tasks: int, long_task: int = -1) -> str:
    """Return the source of a file of tasks, of which one may be of 300 words."""
    path = folder / f"tasks-{num_tasks}.jsonl"
    tasks = [
        {"id": f"t{number}", "prompt": f"What is {number} + 1?", "answer": str(number)}
        for number in range(num_tasks)
    ]
    if long_task >= 0:
        tasks[long_task]["prompt"] = "What is it? " * 100
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return f"file:{path}"


def to_the_end(folder: Path) -> dict[str, Any]:
    """Play two epochs of a file of tasks."""
    endless = arguments(folder, max_steps=-1, num_train_epochs=2)
    trainer = Noting(TINY, tasks_file(folder, 6), endless, stop_after_idle_steps=0)
    trainer.train()
    epochs = [sorted(trainer.played[:6]), sorted(trainer.played[6:])]
    return {"num_steps": trainer.state.global_step, "epochs": epochs}


def with_short_steps(folder: Path) -> dict[str, Any]:
    """Play epochs of three batches of two passes, four of them to a step."""
    args = arguments(
        folder / "short",
        max_steps=-1,
        num_train_epochs=3,
        gradient_accumulation_steps=4,
        save_strategy="steps",
        save_steps=3,
    )
    source = tasks_file(folder, 6)
    whole = Noting(TINY, source, args, stop_after_idle_steps=0)
    whole.train()
    again = Noting(TINY, source, args, stop_after_idle_steps=0)
    again.train(resume_from_checkpoint=str(folder / "short" / "checkpoint-3"))
    return {
        "batches_of_short_steps": whole.steps,
        "tasks_of_short_steps": [
            sorted(whole.played[first : first + 6]) for first in (0, 6, 12)
        ],
        "length_of_short_steps": whole._run.num_steps,
        "resumed_short_steps": again.steps,
        "resumed_tasks_of_short_steps": again.played
        == whole.played[-len(again.played) :],
    }


def inside_a_batch(folder: Path) -> dict[str, Any]:
    """Go on from checkpoints at the end of a batch of two steps, and inside of one."""
    args = arguments(
        folder / "inside",
        max_steps=4,
        gradient_accumulation_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=4,
    )
    AipoGRPOTrainer(TINY, SOURCE, args).train()
    told = {}
    for step in (2, 3):
        again = Noting(TINY, SOURCE, args)
        try:
            again.train(
                resume_from_checkpoint=str(folder / "inside" / f"checkpoint-{step}")
            )
        except AipoError as error:
            told[f"resumed_at_{step}"] = str(error)
        else:
            told[f"resumed_at_{step}"] = str(again.steps)
    return told


def with_long_prompts(folder: Path) -> dict[str, Any]:
    """Play a task whose prompt is over the limit, and tasks of which all are."""
    source = tasks_file(folder, 12, long_task=11)
    environment = Environment(source=source, rules={"max_context_tokens": 200})
    one_of_them = Noting(
        TINY,
        environment,
        arguments(
            folder, max_steps=-1, num_train_epochs=1, per_device_train_batch_size=2
        ),
        stop_after_idle_steps=0,
    )
    one_of_them.train()
    return {"played_with_a_long_prompt": sorted(set(one_of_them.played))}


def of_rows_without_tokens() -> list[list[int]]:
    """Return lengths of the rows of batches in which rows have no token, or none."""
    nothing = np.zeros(0, bool)
    empty = Row(
        token_ids=np.zeros(0, np.int64),
        policy_mask=nothing,
        agent_mask=nothing,
        sampler_logprobs=np.zeros(0, np.float32),
        agent_logprobs=np.zeros(0, np.float32),
        advantage=1.0,
    )
    full = Row(
        token_ids=np.arange(3),
        policy_mask=np.array([False, False, True]),
        agent_mask=np.zeros(3, bool),
        sampler_logprobs=np.zeros(3, np.float32),
        agent_logprobs=np.zeros(3, np.float32),
        advantage=1.0,
    )
    told = []
    for rows in ([], [empty], [empty, full], [full, empty, full]):
        batch = generation_batch(rows, 2, 0, torch.device("cpu"))
        told.append(batch["attention_mask"].sum(1).tolist())
    return told


def in_bfloat16(folder: Path) -> float:
    """Return how far sampler and learner are apart where both round."""
    trainer = AipoGRPOTrainer(TINY, SOURCE, arguments(folder, bf16=True, use_cpu=True))
    trainer.train()
    return float(trainer.state.log_history[1]["kl_sampler"])


def with_adapter() -> tuple[Any, Any]:
    model, tokenizer = load_policy(TINY)
    adapter = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(model, adapter), tokenizer


def of_adapter(folder: Path) -> dict[str, Any]:
    """Train an adapter; count the weights that changed."""
    model, tokenizer = with_adapter()
    weights = dict(model.named_parameters())
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    trainer = AipoGRPOTrainer(
        model, SOURCE, arguments(folder), processing_class=tokenizer
    )
    trainer.train()
    changed = [name for name in weights if not torch.equal(before[name], weights[name])]
    trained = [name for name, weight in weights.items() if weight.requires_grad]
    assert set(changed) <= set(trained)
    refusal = ""
    model, tokenizer = with_adapter()
    try:
        AipoGRPOTrainer(
            model,
            SOURCE,
            arguments(folder, beta=0.1),
            objective=ObjectiveConfig(kl_coef=0.1),
            processing_class=tokenizer,
        )
    except AipoError as error:
        refusal = str(error)
    return {
        "num_trained_by_adapter": len(trained),
        "num_changed_by_adapter": len(changed),
        "kl_sampler_of_adapter": float(trainer.state.log_history[1]["kl_sampler"]),
        "adapter_with_reference": refusal,
    }


def main() -> None:
    # Names of transformers' that TRL and peft use.
    warnings.simplefilter("ignore", FutureWarning)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = resumed(folder / "resumed") | to_the_end(folder)
        told |= with_short_steps(folder)
        told |= inside_a_batch(folder)
        told |= with_long_prompts(folder)
        told["row_lengths"] = of_rows_without_tokens()
        told["kl_sampler_in_bfloat16"] = in_bfloat16(folder)
        told |= of_adapter(folder)
    print(json.dumps(told), flush=True)


torch.set_num_threads(1)
main()
