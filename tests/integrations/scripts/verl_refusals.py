"""Settings of verl's that would do nothing, or something else, are refused by name."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import verl_engine

verl_engine.prepare()

from datasets import load_dataset  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from verl.trainer.ppo.v1 import get_trainer_cls  # noqa: E402

from aipo_learner import policy_folder  # noqa: E402
from aipo_learner.integrations.verl import AipoVerlTrainer, write_tasks  # noqa: E402
from aipo_learner.integrations.verl.arguments import (  # noqa: E402
    _REQUIRED,
    check_verl_config,
    run_settings,
    training_run,
)
from aipo_learner.integrations.verl.tasks import check_splits  # noqa: E402

ACTOR = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
PRECISION = f"{ACTOR}.fsdp_config.mixed_precision.param_dtype"
SIZES = (f"{ROLLOUT}.n=4", "data.train_batch_size=6")
CASES: dict[str, list[str]] = {
    "none": [],
    "advantages": ["algorithm.adv_estimator=gae"],
    "kl in rewards": ["algorithm.use_kl_in_reward=True"],
    "clip": [f"{ACTOR}.clip_ratio_high=0.28"],
    "averages": [f"{ACTOR}.loss_agg_mode=seq-mean-token-mean"],
    "entropy": [f"{ACTOR}.entropy_coeff=0.01"],
    "policy loss": [f"{ACTOR}.policy_loss.loss_mode=gspo"],
    "top_p": [f"{ROLLOUT}.top_p=0.9"],
    "top_k": [f"{ROLLOUT}.top_k=50"],
    "correction": ["algorithm.rollout_correction.rollout_is=token"],
    "reward function": ["reward.custom_reward_function.path=mine.py"],
    "engine": [f"{ACTOR}.strategy=megatron"],
    "sglang": [f"{ROLLOUT}.name=sglang"],
    "logprobs": [f"{ROLLOUT}.calculate_log_probs=False"],
    "filter": ["algorithm.filter_groups.enable=True"],
    "reference": [f"{ACTOR}.use_kl_loss=True"],
    "reference of ours": ["+trainer.v1.aipo.objective.kl_coef=0.1"],
    "reference of both": [
        f"{ACTOR}.use_kl_loss=True",
        f"{ACTOR}.kl_loss_coef=0.1",
        "+trainer.v1.aipo.objective.kl_coef=0.1",
    ],
    "setting": ["+trainer.v1.aipo.independance=mixed"],
    "objective": ["+trainer.v1.aipo.objective.flor=0.3"],
    "observations": [
        "+trainer.v1.aipo.objective.observation_weight=0.05",
        "+trainer.v1.aipo.objective.observation_authors=[env]",
    ],
    "authors without a weight": [
        "+trainer.v1.aipo.objective.observation_authors=[env]"
    ],
    "rule of one's own": ["+trainer.v1.aipo.objective.agent_rule='json:dumps'"],
    "base of one's own": ["+trainer.v1.aipo.objective.base='json:dumps'"],
    "gspo in bfloat16": ["+trainer.v1.aipo.objective.base=gspo"],
    "narrow clip in bfloat16": ["+trainer.v1.aipo.objective.clip_low=0.001"],
    "gspo in float32": ["+trainer.v1.aipo.objective.base=gspo", f"+{PRECISION}=fp32"],
    "gspo with a wide clip": [
        "+trainer.v1.aipo.objective={base: gspo, clip_low: 0.2, clip_high: 0.2}"
    ],
    "rloo in bfloat16": ["+trainer.v1.aipo.objective.base=rloo"],
    "reward manager": ["reward.reward_manager.name=dapo"],
    "turns": [f"{ROLLOUT}.multi_turn.max_assistant_turns=1"],
    "multi_turn": [f"{ROLLOUT}.multi_turn.enable=True"],
    "calculated entropy": [f"{ACTOR}.calculate_entropy=True"],
    "rollout seed": [f"{ROLLOUT}.seed=7"],
    "determinism": [f"{ROLLOUT}.full_determinism=True"],
    "another loop": [f"{ROLLOUT}.agent.default_agent_loop=tool_agent"],
    "value": ["+trainer.v1.aipo.independence=internalized"],
    "environment": ["+trainer.v1.aipo.environment.sauce=toy"],
}


def config_of(*overrides: str) -> Any:
    return verl_engine.verl_config(policy_folder("tiny"), *SIZES, *overrides)


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    try:
        call(*arguments, **named)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def question(number: int) -> str:
    """Return a question of twenty words, none of which is one of another question."""
    return " ".join(f"word{number}x{place}" for place in range(20))


def file_of(path: Path, numbers: dict[str, range]) -> str:
    """Write tasks with the questions of some numbers, by splits; return the source."""
    rows = [
        {
            "id": f"t{number}",
            "question": question(number),
            "answer": str(number),
            "split": split,
        }
        for split, of_split in numbers.items()
        for number in of_split
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return f"file:{path}"


def held_out_tasks(folder: Path) -> dict[str, Any]:
    """Return the training tasks of a dataset, and those of its run, by their indices.

    The second and the fourth of six stand among held-out tasks.
    """
    source = file_of(folder / "tasks.jsonl", {"train": range(6), "test": range(6, 8)})
    held_out = file_of(
        folder / "held.jsonl", {"train": range(8, 9), "test": range(1, 4, 2)}
    )
    train, _ = write_tasks(source, folder / "held", held_out=[held_out])
    rows = load_dataset("parquet", data_files=str(train), split="train")
    config = config_of(
        f"+trainer.v1.aipo.environment='{source}'",
        f"+trainer.v1.aipo.held_out=['{held_out}']",
    )
    _, scenario = training_run(config)
    return {
        "written": [row["extra_info"]["task_id"] for row in rows],
        "played": [
            scenario.source.task("train", row["extra_info"]["index"]).id for row in rows
        ],
    }


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    refusals = {
        name: refusal(check_verl_config, config_of(*overrides))
        for name, overrides in CASES.items()
    }
    defaults = config_of()
    missing = object()
    read = config_of(
        "+trainer.v1.aipo.environment='toy:kinds=knowledge'",
        "+trainer.v1.aipo.objective={base: dapo, floor: 0.3}",
        "+trainer.v1.aipo.aided_share=0.25",
        "+trainer.v1.aipo.held_out=['file:held.jsonl']",
        f"{ROLLOUT}.temperature=0.9",
        f"{ACTOR}.optim.total_training_steps=50",
    )
    settings = run_settings(read)
    config = config_of("+trainer.v1.aipo.environment='toy:kinds=knowledge'")
    paths = write_tasks("toy:kinds=knowledge", folder, num_train=3, num_test=2)
    rows, validation = (
        load_dataset("parquet", data_files=str(path), split="train") for path in paths
    )
    told = {
        "refusals": refusals,
        # A setting that verl has renamed would be refused no more.
        "of_no_setting": [
            name
            for name in _REQUIRED
            if OmegaConf.select(defaults, name, default=missing) is missing
        ],
        "read": [
            settings.environment.name,
            settings.objective.base,
            settings.objective.floor,
            settings.aided_share,
            list(settings.held_out),
            settings.group_size,
            settings.groups_per_step,
            settings.temperature,
            settings.num_steps,
        ],
        "one_scenario": training_run(config)[1] is training_run(config)[1],
        "registered": get_trainer_cls("aipo") is AipoVerlTrainer,
        "sizes": refusal(AipoVerlTrainer, config_of(f"{ACTOR}.ppo_mini_batch_size=4")),
        "files": [path.name for path in paths],
        "row": rows[1],
        "held_out": held_out_tasks(folder),
        "splits": {
            "as written": refusal(check_splits, rows, validation),
            "trained on twice": refusal(check_splits, rows, rows),
            "validated twice": refusal(check_splits, validation, validation),
            "unnamed": refusal(check_splits, [{"prompt": []}], validation),
        },
        "endless": refusal(write_tasks, "toy", folder, num_test=1),
        "none_at_all": refusal(write_tasks, "toy", folder, num_train=0, num_test=1),
    }
    print(json.dumps(told))
    sys.stdout.flush()


main()
