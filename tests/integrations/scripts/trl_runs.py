"""Runs of AipoGRPOTrainer that go on, that end with the tasks, in bfloat16, of LoRA."""

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from trl import GRPOConfig

from aipo_env import AipoError
from aipo_learner import RECIPES, ObjectiveConfig, load_policy, policy_folder
from aipo_learner.integrations.trl import AipoGRPOTrainer, grpo_arguments

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
    """Notes which tasks were played."""

    def _play(self, *asked: Any) -> Any:
        groups = super()._play(*asked)
        self.played = [*getattr(self, "played", []), *(g[0].task.id for g in groups)]
        return groups


def to_the_end(folder: Path) -> dict[str, Any]:
    """Play two epochs of a file of tasks."""
    path = folder / "tasks.jsonl"
    tasks = [
        {"id": f"t{number}", "prompt": f"What is {number} + 1?", "answer": str(number)}
        for number in range(6)
    ]
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    endless = arguments(folder, max_steps=-1, num_train_epochs=2)
    trainer = Noting(TINY, f"file:{path}", endless, stop_after_idle_steps=0)
    trainer.train()
    epochs = [sorted(trainer.played[:6]), sorted(trainer.played[6:])]
    return {"num_steps": trainer.state.global_step, "epochs": epochs}


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
        told["kl_sampler_in_bfloat16"] = in_bfloat16(folder)
        told |= of_adapter(folder)
    print(json.dumps(told), flush=True)


torch.set_num_threads(1)
main()
