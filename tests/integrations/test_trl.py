"""TRL's GRPOTrainer on our environments and loss, in the real package."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
OBJECTIVES = (
    *("grpo", "dapo", "dr_grpo", "gspo"),
    "with reference and entropy",
    "with observations",
)
MAX_DIFFERENCE = 2e-4
"""Of gradients, relative: TRL's head and ours round differently."""


@pytest.fixture(scope="module")
def trl(venv: Callable[[str, Sequence[str]], Path]) -> Path:
    """The Python of a virtual environment with TRL and what the learner needs."""
    needed = ("trl==1.16.0", "torch==2.13.0", "transformers==5.23.0")
    return venv("trl", (*needed, "peft>=0.19", "tensorboard>=2.20", "jinja2>=3.1"))


def settings() -> dict[str, str]:
    """Return the environment variables of a run that asks nobody else."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**os.environ, **offline, "OMP_NUM_THREADS": "1"}


def run(script: str, *command: str | Path, timeout_s: float = 300) -> dict[str, Any]:
    """Return what a script prints in its last line."""
    done = subprocess.run(
        [*command, SCRIPTS / script],
        env=settings(),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.integrations
@pytest.mark.parametrize("num_processes", [1, 2])
def test_the_gradient_is_that_of_one_loss_of_the_whole_batch(
    trl: Path, num_processes: int
):
    command: list[str | Path] = [trl, "-W", "error"]
    if num_processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone"]
        command = [trl, *launch, f"--nproc-per-node={num_processes}"]
    told = run("trl_gradients.py", *command)
    assert tuple(told["differences"]) == OBJECTIVES
    for name in OBJECTIVES:
        assert told["differences"][name] < MAX_DIFFERENCE
        assert told["losses"][name] < 1e-5
        # 32 episodes, 16 of them again without their agent, whole after the shuffle.
        assert told["rows"][name] == [48, True]
    # Of the toy recipe's 12 groups.
    assert told["num_passes"] == 12 // num_processes
    assert told["was_shuffled"]
    assert told["agent_tokens"] == 160
    assert told["in_four_steps"] < MAX_DIFFERENCE
    assert told["seen_twice"]
    assert (
        "which num_generations=8 does not divide: a group would be torn apart"
        in (told["refusal"])
    )


@pytest.mark.integrations
def test_runs_of_other_forms_are_what_they_should_be(trl: Path):
    told = run("trl_runs.py", trl, "-W", "error")
    # Of four steps two are made again, from a checkpoint.
    assert len(told["whole"]) == 4
    assert told["resumed"] == told["whole"]
    # Six tasks, two at a time, are three steps an epoch, of each task once.
    assert told["num_steps"] == 6
    assert told["epochs"] == [[f"t{number}" for number in range(6)]] * 2
    # The last step of an epoch is half as long as the others, and skips no batch.
    assert told["batches_of_short_steps"] == list(range(9))
    assert told["tasks_of_short_steps"] == [[f"t{number}" for number in range(6)]] * 3
    assert told["length_of_short_steps"] == 9
    # Two steps are an epoch: the third one ends behind the fifth batch.
    assert told["resumed_short_steps"] == [5, 6, 7, 8]
    assert told["resumed_tasks_of_short_steps"]
    assert told["resumed_at_2"] == "[1]"
    assert told["resumed_at_3"] == (
        "checkpoint-3: it was written between the optimiser steps of a generation"
        " batch, which a checkpoint does not hold. Go on from one at the end of a"
        " batch, such as checkpoint-2; args: save_steps says where they are."
    )
    # Two of twelve are held out, and not that whose prompt does not fit.
    assert len(told["played_with_a_long_prompt"]) == 10
    assert "t11" in told["played_with_a_long_prompt"]
    # A model needs two tokens, and a batch of two parts has two rows.
    assert told["row_lengths"] == [[2, 2], [2, 2], [3, 2], [3, 3]]
    # Sampled and learned under autocast.
    assert 1e-9 < told["kl_sampler_in_bfloat16"] < 1e-4
    assert told["num_trained_by_adapter"] == told["num_changed_by_adapter"] == 12
    assert told["kl_sampler_of_adapter"] < 1e-9
    assert told["adapter_with_reference"].startswith(
        "objective.kl_coef=0.1 of a policy with adapters: TRL loads no reference model"
    )


@pytest.mark.integrations
def test_trls_arguments_are_the_run_that_the_settings_say(trl: Path):
    told = run("trl_arguments.py", trl, "-W", "error")
    # Of each batch four optimiser steps, two times two.
    assert told["fields"] == {
        "max_steps": 200,
        "warmup_steps": 40,
        "save_steps": 100,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,
        "num_iterations": 2,
        "optim": "adamw_bnb_8bit",
        "mask_truncated_completions": True,
    }
    # The rates of `aipo train`: none is 0 before the end, which is reached.
    assert told["linear"] == [0.5, 1.0, 0.875, 0.75, 0.625, 0.5]
    assert told["cosine"] == [0.5, 1.0, 0.853553, 0.5, 0.146447, 0.0]
    assert told["constant"] == [0.333333, 0.666667, 1.0, 1.0, 1.0, 1.0]
    # With two updates of a batch, the last has the rate that `aipo train` has.
    assert told["twice"][1::2] == told["linear"]
    named = [refusal.split("=", 1)[0] for refusal in told["refusals"]]
    assert named == [
        "config: source.max_refills",
        "config: source.max_staleness",
        "config: source.episodes",
        "config: source.sft_episodes",
        "config: compute.compile_layers",
        "config: compute.lora_rank",
        "config: evaluation.every",
        "config: bounds",
    ]
    assert told["refusals"][0] == (
        "config: source.max_refills=3 has no counterpart among TRL's arguments: TRL's"
        " trainer plays every batch when it is due. Leave it out."
    )


@pytest.mark.integrations
def test_what_would_be_ignored_or_torn_apart_is_refused_by_name(trl: Path):
    told = run("trl_refusals.py", trl, "-W", "error")
    assert told["loss_type"] == (
        "ConfigError: args: loss_type='grpo' is not for AipoGRPOTrainer:"
        " objective.base names the base algorithm. Leave it out."
    )
    assert told["top_p"].startswith("ConfigError: args: top_p=0.9 is not for")
    for name in ("fp16", "regex", "experts", "noise"):
        assert " is not for AipoGRPOTrainer: " in told[name]
    assert told["dropout"].startswith("ConfigError: AipoGRPOTrainer: dropout of 0.1 in")
    # An argument that a later TRL has is in none of the two lists.
    assert told["of_neither_list"] == []
    assert "beta=0.0 and objective.kl_coef=0.1 must be equal" in told["beta"]
    assert told["teacher"] == (
        "ConfigError: objective.teacher='self:answer': AipoGRPOTrainer asks no teacher."
        " Leave it out, or train with `aipo train`."
    )
    assert "max_steps=-1: the tasks of 'toy' have no end" in told["max_steps"]
    assert "Did you mean 'internalised'?" in told["independence"]
    assert told["all_wrong"] == ""
    assert told["competence"].startswith(
        "ConfigError: AipoGRPOTrainer: aid='competence:0.5' goes by the success of"
    )
    assert told["torn"] == (
        "ConfigError: 6 rollouts for this process in the place of 8: groups were torn"
        " apart by batching. Leave TRL's dataloader as it is."
    )
    assert told["nan"].startswith(
        "NoGradient: 1 generation batches in a row gave no gradient. The last of them:"
        " 2 x group with a failed episode, verifier_error; the first failure: reward"
        " function 'not_a_number' returned nan"
    )


@pytest.mark.integrations
def test_the_example_of_the_documentation_runs(trl: Path, tmp_path: Path):
    page = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    example = page.split("## TRL", 1)[1].split("```python\n", 1)[1].split("```")[0]
    assert "max_steps=60" in example
    script = tmp_path / "example.py"
    script.write_text(example.replace("max_steps=60", "max_steps=1"))
    done = subprocess.run(
        [trl, "-W", "error", script],
        cwd=tmp_path,
        env=settings(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("alone, on held-out tasks: ")
    assert (tmp_path / "runs" / "trl" / "policy" / "model.safetensors").is_file()


@pytest.mark.integrations
def test_turns_of_trls_vllm_are_asked_for_side_by_side(trl: Path):
    told = run("trl_vllm.py", trl, "-W", "error")
    assert told["num_syncs"] == 1
    marks = ["</knowledge>", "</reason>", "</verify>"]
    first, alone, second = told["calls"]
    # Four episodes that may consult and four that may not, then what the agent told.
    assert first == [4, 160, marks]
    assert alone == [4, 160, []]
    assert second[0] == 4
    assert second[1] < 160
    assert told["success"] == 1
    assert told["agent_tokens"] == 40
    assert told["kl_sampler"] < 1e-8
    assert told["refusal"].startswith(
        "generate returned 3 token ids and 2 log-probabilities"
    )
    # Whoever waits is told, and the next turn is written.
    for number, name in ((1, "one_too_few"), (3, "one_too_many")):
        *waiting, after = told[name]
        assert len(waiting) == 3
        for answer in waiting:
            assert answer.startswith(f"PolicyError('vLLM returned {number} turns")
        assert after == "([1], [-0.5])"
    assert told["failed"] == ["OSError('no memory')"] * 3 + ["([1], [-0.5])"]
    assert told["num_cancelled"] == 3


@pytest.mark.integrations
def test_an_environment_behind_trls_own_trainer_has_its_agents_masked(trl: Path):
    told = run("trl_environment.py", trl, "-W", "error")
    assert told["roles"] == ["system", "user"]
    assert told["replies"] == ["mele=#78#25;", "5", "3"]
    assert told["rewards"] == [1.0, 0.0]
    assert told["after"] == "The episode is over."
    consult, add = (schema["function"] for schema in told["schemas"])
    kind = consult["parameters"]["properties"]["kind"]
    assert kind["enum"] == ["knowledge", "reason", "verify"]
    assert consult["parameters"]["required"] == ["kind", "query"]
    assert add["description"] == "Add two numbers."
    assert add["parameters"]["required"] == ["first"]
    assert add["parameters"]["properties"]["first"] == {
        "type": "integer",
        "description": "The one.",
    }
    # An answer is what the policy says last, and nobody else.
    assert told["rewards_of_last_words"] == [0.0, 1.0, 0.0, 0.0]
    # What ends a run is no reply: the policy reads nothing of it.
    assert told["shown_of_error"] == "The episode is over."
    assert told["raised"] == "the key is wrong: 1234"
    # Two rollouts on each of two processes, and two with another seed.
    assert len(set(told["seeds"])) == 6
    taken, endless = told["refusals"]
    assert taken.startswith("tool 'reset': a method of that name means something else")
    assert endless == ("tasks: those of 'toy' have no end. Say how many: tasks(512).")
    # What the agent said is behind TRL's mask, and with it in no loss.
    assert len(told["masked"]) == 4
    for text in told["masked"]:
        assert "<tool_response>\nmele=#78#25;\n</tool_response>" in text


@pytest.mark.slow
@pytest.mark.integrations
def test_it_learns_to_do_without_its_agent(trl: Path):
    told = run("trl_learns.py", trl, "-W", "error", timeout_s=1800)
    assert told["first"] < 0.1
    assert told["last"] >= 0.5
    assert told["num_steps"] <= 60
