"""verl's trainer, agent loop and engine on our environments and loss, in the real
package.
"""

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
OBJECTIVES = (
    *("grpo", "dapo", "dr_grpo", "gspo", "on_policy"),
    "with reference and entropy",
)
MAX_DIFFERENCE = 1e-4
"""Of a gradient from the loss's, relative to its length; 8e-6 was measured."""
MAX_DIFFERENCE_IN_BFLOAT16 = 0.05
"""As above, of passes in bfloat16; 0.02 was measured."""


@pytest.fixture(scope="module")
def verl(venv: Callable[[str, Sequence[str]], Path]) -> Path:
    """The Python of a virtual environment with verl, and what its trainer imports."""
    needed = ("verl==0.9.1", "TransferQueue==0.1.11", "torch==2.13.0")
    of_its_core = ("cachetools>=5", "fastapi>=0.110", "uvicorn>=0.30")
    return venv("verl", (*needed, "transformers==5.9.0", *of_its_core, "jinja2>=3.1"))


def settings() -> dict[str, str]:
    """Return the environment variables of a run that asks nobody else."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**os.environ, **offline, "OMP_NUM_THREADS": "1"}


def run(
    script: str,
    *command: str | Path,
    arguments: Sequence[str] = (),
    timeout_s: float = 300,
) -> dict[str, Any]:
    """Return what a script prints in its last line. verl warns of much by itself."""
    done = subprocess.run(
        [*command, SCRIPTS / script, *arguments],
        env=settings(),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def loop_told(verl: Path) -> dict[str, Any]:
    """What the script of the agent loop prints."""
    return run("verl_loop.py", verl)


@pytest.fixture(scope="module")
def settings_told(verl: Path) -> dict[str, Any]:
    """What the script of settings and tasks prints."""
    return run("verl_refusals.py", verl)


@pytest.mark.integrations
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_the_gradient_of_its_engine_is_that_of_one_loss_of_the_whole_batch(
    verl: Path, num_ranks: int
):
    command: list[str | Path] = [verl]
    if num_ranks > 1:
        launch = ["-m", "torch.distributed.run", "--standalone"]
        command = [verl, *launch, f"--nproc-per-node={num_ranks}"]
    told = run("verl_loss.py", *command)
    assert told["num_ranks"] == num_ranks
    # Four microbatches of four rows, which are two on each of two ranks.
    assert told["rows"] == 16
    assert told["agent_free"] == 4
    assert told["agent_tokens"] == 50
    for name in OBJECTIVES:
        # The policy has changed since the rollout, and some agents' probabilities are
        # known: what ignores either is another loss.
        assert told[name]["known_agent_tokens"] == 23
        whole, *of_ways = told[name]["clipped"]
        assert whole > 0
        # In bfloat16 a ratio may be rounded to the other side of the clip.
        assert of_ways == pytest.approx([whole] * 3, abs=2)
        for way in ("fp32", "packed"):
            assert told[name][way]["gradient"] < MAX_DIFFERENCE
            assert told[name][way]["told"] < 1e-6
            # Metrics come as sums of each microbatch on each rank.
            assert told[name][way]["loss"] < 1e-6
        assert told[name]["fp32"]["num_passes"] == 4
        assert told[name]["packed"]["num_passes"] > 4
        assert told[name]["bf16"]["gradient"] < MAX_DIFFERENCE_IN_BFLOAT16
        assert told[name]["bf16"]["told"] < 0.01


@pytest.mark.integrations
def test_the_agent_loop_says_whose_each_token_is(loop_told: dict[str, Any]):
    told = loop_told
    assert told["registered"].endswith(".integrations.verl.agent_loop.AipoAgentLoop")
    assert told["policy"] == "<knowledge>mele</knowledge>\\boxed{7623}<|end|>"
    assert told["agent"] == "mele=#78#25;"
    assert told["agent_alone"] == 0
    # What verl calls the prompt ends where the policy begins.
    assert told["prompt_ends_before_the_policy"] == 1
    assert told["rewards"] == [1.0, 1.0, 0.0]
    assert told["reward_at_the_end"] == 1.0
    # The sampler's of the policy's tokens; the agent's are not known: NaN, and not 0.
    assert told["sampled"] == [-0.5, 0.0]
    assert set(told["agent_log_probs"]) == {"nan"}
    assert told["elsewhere"] == 0
    assert set(told["unknown"]) == {"nan"}
    # Beside rollouts of other lengths they are kept as verl's own tensors are.
    assert told["nested"] == {
        "response_mask": True,
        "agent_mask": True,
        "agent_log_probs": True,
    }
    assert told["rows_of_batch"] == [True, True, True]
    assert told["versions"] == [6, 6]
    assert told["episode"] == ["toy-0-train-0", True, "u", 6, 1.0]
    assert told["authors"]


@pytest.mark.integrations
def test_rollouts_of_other_kinds_are_kept_as_they_are(loop_told: dict[str, Any]):
    told = loop_told
    # An agent that is the policy itself: its log-probabilities are known.
    assert told["of_itself"] == ["five", [-0.5, 0.0]]
    assert told["withheld"] == ""
    # A prompt that fills the context leaves nothing to train on.
    assert told["full"] == [[0], [0]]
    assert told["empty_row"] == {
        "prompts": [9],
        "responses": [9],
        "response_mask": [0],
        "agent_mask": [0],
        "rollout_log_probs": [0.0],
        "agent_log_probs": [0.0],
        "is_rewritten": [0],
    }


@pytest.mark.integrations
def test_turns_are_asked_for_by_their_keys_from_the_whole_vocabulary(
    loop_told: dict[str, Any],
):
    told = loop_told
    assert told["stop"] == ["</knowledge>", "</reason>", "</verify>"]
    assert told["kept_stop"]
    assert told["end_token"]
    assert told["max_tokens"] == [160, 157]
    assert told["whole_vocabulary"] == [1.0, 0, 0.0]
    assert told["never_tokenised_again"]
    assert told["same_server"]
    # Five turns of three rollouts.
    assert told["seeds"] == 5
    assert told["same_seeds"]


@pytest.mark.integrations
def test_a_rollout_that_failed_is_not_scored_by_verl(loop_told: dict[str, Any]):
    told = loop_told
    # verl would score what has no reward; that it has none says the episode.
    assert told["without_verdict"] == [0.0, None]
    assert told["dead"] == ["OSError: no memory", 0]
    # verl puts rollouts beside each other by the fields that they have.
    assert told["fields_of_a_failure"] == []
    assert told["short"].startswith("PolicyError: generate returned 5 tokens of at")
    assert told["other_tasks"].startswith(
        "DataError: the dataset's row 0 of split 'train' is task 'mine-1', and that of"
    )
    assert told["no_task"].startswith(
        "DataError: the dataset has a row whose extra_info is {'index': 0}: it names no"
    )
    assert told["one_too_many"].startswith(
        "ConfigError: rollout 4 of a task whose group has 4: leave the dataset's column"
    )
    assert "Set trainer.v1.trainer_mode=aipo." in told["other_trainer"]
    # Validated alone; there what failed is raised, and verl leaves the sample out.
    assert told["validated"] == 0
    assert told["validation_mean"] == {"correct": 1.0, "reward": 1.0}
    assert told["validation_dead"] == "OSError: no memory"
    assert told["validation_without_verdict"].startswith(
        "DataError: task 'toy-0-test-0' has no reward: verifier_error."
    )


@pytest.mark.integrations
def test_steps_of_its_trainer_train_on_the_rows_of_aipo_train(verl: Path):
    told = run("verl_steps.py", verl, timeout_s=900)
    first, second = told["steps"]
    # Of six groups one has a rollout without a verdict, and one has lost a rollout.
    assert first["num_episodes"] == 23
    assert first["partial"] == 2
    assert first["num_rows"] == first["rows"] == 24
    assert first["agent_free"] == 8
    assert first["agent_tokens"] == 80
    assert first["aided"] == pytest.approx(10 / 11)
    assert second["num_episodes"] == 24
    assert second["partial"] == 0
    assert second["num_rows"] == second["rows"] == 36
    assert second["agent_free"] == 12
    # Passes are of five rows; the copies by which verl fills up count nothing.
    assert [first["num_padding"], second["num_padding"]] == [1, 4]
    for step in (first, second):
        assert step["as_aipo_train"]
        # The engine has the weights, and says the same of the same tokens.
        assert step["kl_sampler"] < 1e-9
        assert abs(step["loss"]) < 1e-6
    assert told["has_learned"]
    assert told["left_in_queue"] == 0
    # "acc" would count samples that failed as wrong ones.
    assert told["validated"] == [
        "val-aux/toy:kinds=knowledge/correct/mean@1",
        "val-core/toy:kinds=knowledge/reward/mean@1",
    ]
    assert told["logged"] == [None, 0.0, 0.0]
    # The normalizers of a batch are divided among its optimiser steps.
    whole, in_halves, twice = told["losses"]
    assert whole == pytest.approx(in_halves, abs=1e-6)
    assert whole == pytest.approx(twice, abs=1e-6)
    # A second epoch over a batch has no other tokens.
    assert len(set(told["policy_tokens"])) == 1
    assert told["policy_tokens"][0] > 0
    # Nobody consults, all are wrong: the weights stay, and then training stops.
    assert told["idle"] == [0, False]
    # Of one group verl has lost a rollout, and of another all.
    assert told["lost"] == 2
    assert told["stopped"].startswith(
        "NoGradient: 2 steps in a row gave no gradient. The last of them: 6 x group all"
        " wrong"
    )
    assert told["validated_twice"].startswith("ConfigError: data.val_files: row 0, ")
    assert told["dead"] == (
        "PolicyError: a rollout could not be played: OSError: no memory"
    )


@pytest.mark.integrations
def test_what_verl_would_do_otherwise_is_refused_by_name(settings_told: dict[str, Any]):
    told = settings_told
    refusals = dict(told["refusals"])
    for name in (
        *("none", "reference of both", "authors without a weight"),
        *("gspo in float32", "gspo with a wide clip", "rloo in bfloat16"),
    ):
        assert refusals.pop(name) == "none"
    for refusal in refusals.values():
        assert refusal.startswith("ConfigError: ")
    assert refusals["clip"] == (
        "ConfigError: actor_rollout_ref.actor.clip_ratio_high=0.28 is not for the"
        " trainer 'aipo': trainer.v1.aipo.objective.clip_low and .clip_high are the"
        " clip. Set it to 0.2."
    )
    assert refusals["observations"] == (
        "ConfigError: trainer.v1.aipo.objective.observation_weight=0.05 is not for the"
        " trainer 'aipo': its rows do not say which tokens are observed. Set it to 0,"
        " or train with `aipo train` or TRL."
    )
    assert "agent_rule 'json:dumps'" in refusals["rule of one's own"]
    assert "base 'json:dumps'" in refusals["base of one's own"]
    assert refusals["gspo in bfloat16"] == (
        "ConfigError: actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype="
        "'bf16' with trainer.v1.aipo.objective.base='gspo', whose clip is 0.0003:"
        " verl's log-probabilities come in larger steps than that. Set"
        " +actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32, and"
        " +actor_rollout_ref.model.override_config.attn_implementation=sdpa, or another"
        " base."
    )
    assert refusals["reward manager"].endswith("Set it to naive.")
    assert refusals["turns"].endswith("Set it to null.")
    assert refusals["engine"].endswith("Set it to fsdp or fsdp2.")
    assert refusals["reward function"].endswith("Set it to null.")
    assert "Did you mean 'independence'?" in refusals["setting"]
    assert "Did you mean 'floor'?" in refusals["objective"]
    # A setting that verl has renamed would be refused no more.
    assert told["of_no_setting"] == []
    assert told["sizes"].startswith("ConfigError: data.train_batch_size=6: ")
    assert told["read"] == [
        *("toy:kinds=knowledge", "dapo", 0.3, 0.25, ["file:held.jsonl"]),
        *(4, 6, 0.9, 50),
    ]
    assert told["one_scenario"]


@pytest.mark.integrations
def test_the_command_of_the_documentation_is_one_that_verl_takes(verl: Path):
    page = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    block = page.split("## verl", 1)[1].split("```bash\n", 1)[1].split("```")[0]
    python, option, module, *overrides = shlex.split(block.replace("\\\n", ""))
    assert [python, option, module] == ["python", "-m", "verl.trainer.main_ppo"]
    told = run("verl_command.py", verl, arguments=overrides)
    assert told == {
        "environment": "toy:kinds=knowledge",
        "floor": 0.3,
        "has_room": True,
    }


@pytest.mark.integrations
def test_the_dataset_names_the_tasks_of_an_environment(settings_told: dict[str, Any]):
    told = settings_told
    assert told["files"] == ["train.parquet", "test.parquet"]
    assert told["row"] == {
        "prompt": [
            {"role": "system", "content": "Solve."},
            {"role": "user", "content": "Apply nize to 9468."},
        ],
        "agent_name": "aipo",
        "reward_model": {"style": "rule", "ground_truth": ""},
        "extra_info": {"split": "train", "index": 1, "task_id": "toy-0-train-1"},
        "data_source": "toy:kinds=knowledge",
    }
    assert told["held_out"] == {
        "written": ["t0", "t2", "t4", "t5"],
        "played": ["t0", "t2", "t4", "t5"],
    }
    assert told["endless"] == (
        "ConfigError: num_train: the tasks of the split 'train' have no end. Say how"
        " many."
    )
    assert told["none_at_all"].startswith("ConfigError: num_train=0: a file has 1 task")


@pytest.mark.integrations
def test_files_of_the_wrong_split_are_refused(settings_told: dict[str, Any]):
    told = settings_told["splits"]
    assert told["as written"] == "none"
    assert told["trained on twice"] == (
        "ConfigError: data.val_files: row 0, task 'toy-0-train-0', is of the split"
        " 'train', and rows there must be of 'test'. Set it to the test.parquet of"
        " write_tasks."
    )
    assert told["validated twice"] == (
        "ConfigError: data.train_files: row 0, task 'toy-0-test-0', is of the split"
        " 'test', and rows there must be of 'train'. Set it to the train.parquet of"
        " write_tasks."
    )
    assert told["unnamed"].startswith(
        "DataError: the dataset has a row whose extra_info is {}: it names no task by"
    )


@pytest.mark.integrations
def test_verl_finds_trainer_and_agent_loop_by_itself_or_says_why_not(verl: Path):
    names = "from verl.trainer.ppo.v1 import get_trainer_cls; get_trainer_cls('aipo')"
    done = subprocess.run(
        [verl, "-c", f"import verl; {names}"],
        env=settings(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    without = "import sys; sys.modules['transfer_queue'] = None; import verl"
    done = subprocess.run(
        [verl, "-c", without],
        env=settings(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "verl is left without the trainer and the agent loop 'aipo': " in done.stderr
