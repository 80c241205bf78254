"""AipoGRPOTrainer learns to do without its agent: the toy recipe, knowledge tasks."""

import json
import tempfile
from typing import Any

import torch
from transformers import TrainerCallback

from aipo_learner import RECIPES, load_policy, policy_folder
from aipo_learner.integrations.trl import AipoGRPOTrainer, grpo_arguments

NUM_STEPS = 60
WINDOW = 5
ENOUGH = 0.5


class UntilItKnows(TrainerCallback):
    """Ends the run when the policy alone is right often enough."""

    def __init__(self) -> None:
        self.alone: list[float] = []

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any, **told: Any
    ) -> None:
        if "success/unaided" in logs:
            self.alone.append(float(logs["success/unaided"]))
        if self.newest() >= ENOUGH:
            control.should_training_stop = True

    def newest(self) -> float:
        """Return the mean over the last steps."""
        return sum(self.alone[-WINDOW:]) / WINDOW


def main() -> None:
    recipe = RECIPES["toy"]()
    model, tokenizer = load_policy(policy_folder("tiny"))
    watch = UntilItKnows()
    with tempfile.TemporaryDirectory() as folder:
        arguments = grpo_arguments(
            recipe,
            output_dir=folder,
            max_steps=NUM_STEPS,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = AipoGRPOTrainer(
            model,
            "toy:kinds=knowledge",
            arguments,
            objective=recipe.objective,
            independence=recipe.independence,
            anneal_from=recipe.anneal_from,
            processing_class=tokenizer,
            callbacks=[watch],
        )
        trainer.train()
    first = watch.alone[0]
    told = {"first": first, "last": watch.newest(), "num_steps": len(watch.alone)}
    print(json.dumps(told), flush=True)


torch.set_num_threads(1)
main()
