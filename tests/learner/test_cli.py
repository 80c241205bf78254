"""The learner's commands, called the way the command line calls them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aipo_env import ConfigError, DataError
from aipo_env.cli import main
from aipo_learner.cli import evaluate_command, train


def test_print_config_can_be_read_back(capsys, tmp_path: Path):
    train(["--recipe", "toy", "--lr", "0.5", "--print-config"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["lr"] == 0.5
    assert printed["objective"]["agent_rule"] == "floored"
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({"lr": 0.25, "environment": {"type": "toy", "difficulty": 2}})
    )
    train(
        ["--recipe", "toy", "--config", str(path), "--num-steps", "3", "--print-config"]
    )
    printed = json.loads(capsys.readouterr().out)
    assert (
        printed["lr"],
        printed["num_steps"],
        printed["environment"]["source"]["difficulty"],
    ) == (0.25, 3, 2)


def test_specs_and_objects_are_single_arguments(capsys):
    train(
        [
            "--environment",
            "toy:difficulty=2",
            "--agents",
            '{"type": "scripted", "wrong": 0.2}',
            "--environment.rules.max-turns",
            "3",
            "--reward",
            "a:f=1,b:g=0.2",
            "--print-config",
        ]
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["environment"] == {
        "source": "toy:difficulty=2",
        "agents": {"type": "scripted", "wrong": 0.2},
        "verifier": {"type": "reward", "functions": {"a:f": 1.0, "b:g": 0.2}},
        "rules": {"max_turns": 3},
    }


@pytest.mark.parametrize("bad", ["[1]", "{"])
def test_a_bad_object_exits_with_code_2(bad: str, capsys):
    with pytest.raises(SystemExit) as caught:
        train(["--bounds", bad])
    assert caught.value.code == 2


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(
        ConfigError,
        match=(
            "there is no 'toi'. Valid: math_7b, math_7b_lora, toy, toy_base,"
            " toy_masked. Did you mean 'toy'?"
        ),
    ):
        train(["--recipe", "toi"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ("[1]", "a JSON object is needed, this is one of type list"),
        ('{"lrr": 1}', "there is no option 'lrr'"),
    ],
)
def test_a_bad_config_file_is_named(tmp_path: Path, content: str, message: str):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        train(["--config", str(path)])


def test_a_missing_config_file_says_how_to_write_one(tmp_path: Path):
    with pytest.raises(ConfigError, match="aipo train --print-config"):
        train(["--config", str(tmp_path / "none.json")])


def test_an_unknown_option_exits_with_code_2(capsys):
    with pytest.raises(SystemExit) as caught:
        train(["--learning-rat", "1"])
    assert caught.value.code == 2
    assert "--learning-rat" in capsys.readouterr().err


def test_eval_writes_scores_and_episodes(tmp_path: Path, capsys):
    evaluate_command(
        [
            "--num-tasks",
            "3",
            "--samples",
            "2",
            "--aided",
            "--aided-samples",
            "2",
            "--num-threads",
            "1",
            "--out",
            str(tmp_path),
        ]
    )
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["unaided"]["num_tasks"] == 3
    assert set(scores["unaided"]["by_bottleneck"]) == {"knowledge", "reason", "verify"}
    assert scores["aided"]["num_samples"] == 2
    assert (
        scores["dependence_gap"]
        == scores["aided"]["pass@1"] - scores["unaided"]["pass@1"]
    )
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 6
    assert "temperature=1.0" in capsys.readouterr().out


def test_eval_measures_a_run_on_its_own_tasks(tmp_path: Path, capsys):
    out = str(tmp_path / "run")
    train(
        [
            "--out",
            out,
            "--environment",
            '{"type": "toy", "difficulty": 2}',
            "--seed",
            "3",
            "--num-steps",
            "1",
            "--groups-per-step",
            "1",
            "--group-size",
            "2",
            "--num-threads",
            "1",
            "--loggers",
            "",
        ]
    )
    evaluate_command(
        [
            "--policy",
            out,
            "--num-tasks",
            "1",
            "--samples",
            "1",
            "--num-threads",
            "1",
            "--out",
            out,
        ]
    )
    (name,) = json.loads((tmp_path / "run" / "scores.json").read_text())["unaided"][
        "num_correct"
    ]
    assert name.startswith("toy-3-test-")
    assert "difficulty" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings",
    [
        {"source": {"type": "subprocess:getoutput", "cmd": "touch {tmp}/ran"}},
        {"agents": {"verify": "subprocess:getoutput:cmd=touch {tmp}/ran"}},
        {"verifier": "subprocess:getoutput:cmd=touch {tmp}/ran"},
        {"verifier": {"type": "reward", "functions": {"os:system": 1.0}}},
        {"tools": ["subprocess:getoutput"]},
        {"tools": ["mcp:touch {tmp}/ran"]},
        {"codec": "subprocess:getoutput:cmd=touch {tmp}/ran"},
        {"id": "subprocess:Own/Env-v0"},
        {"id": "Own/Env-v0"},
        {"agents": {"type": "mix", "agents": [{"type": "os:system", "command": "x"}]}},
        {"agents": "openai:m@http://127.0.0.1:9/v1"},
        {"agents": "library:{tmp}"},
        {"verifier": {"type": "auto", "allow_unsafe": True}},
        {"source": "toy,subprocess:getoutput"},
        {"agents": "aime2025,subprocess:getoutput"},
        {"source": "hf:somebody/set"},
        {"source": "math500,folder=/"},
        {"source": "reasoning_gym:x,size=1000000000"},
        {"source": {"type": "toy", "kinds": {"type": "os:system"}}},
        {"source": "gsm8k + subprocess:getoutput:cmd=touch {tmp}/ran"},
        {"source": {"type": "mix", "sources": ["math_500", "hf:somebody/set"]}},
        {"source": {"type": "mix", "sources": {"os:system": 1, "math_500": 1}}},
        {"source": {"type": "mix", "sources": [{"type": "mix", "sources": []}]}},
        {"source": '{"type": "os:system", "command": "touch {tmp}/ran"}'},
        {"source": "file:tasks.jsonl,reader=os:system"},
    ],
)
def test_eval_runs_no_code_that_a_run_folder_names(settings: dict, tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    row = {"format": 3, "trust_remote_code": True, "environment": settings}
    text = json.dumps(row).replace("{tmp}", str(tmp_path))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(
        ConfigError, match="config.json names .* which is code of its own, or asks"
    ):
        evaluate_command(["--policy", str(tmp_path), "--aided"])
    assert not (tmp_path / "ran").exists()


def test_eval_reads_the_settings_of_a_run_through_no_link(tmp_path: Path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (tmp_path / "elsewhere.json").write_text('{"format": 3}')
    (run / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(DataError, match="config.json: a link, which is not followed"):
        evaluate_command(["--policy", str(run)])


def test_a_config_file_changes_single_nested_settings_of_a_recipe(
    tmp_path: Path, capsys
):
    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps({"objective": {"kl_coef": 0.01}, "compute": {"lora_rank": 8}})
    )
    train(["--recipe", "math_7b", "--config", str(path), "--print-config"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["objective"]["kl_coef"] == 0.01
    assert printed["objective"]["clip_high"] == 0.28
    assert printed["compute"] == {
        **printed["compute"],
        "lora_rank": 8,
        "gradient_checkpointing": True,
    }


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert main(["train", *words]) == 2
    return capsys.readouterr().err


def test_a_start_that_names_nothing_or_half_says_what_is_needed(
    capsys: pytest.CaptureFixture,
):
    assert "say what to train, and in what: --policy MODEL --env" in refused(capsys)
    assert "no environment is named for the policy './mine'" in refused(
        capsys, "--policy", "./mine"
    )
    assert "no policy is named for the environment 'shipped:code'" in refused(
        capsys, "--environment", "shipped:code"
    )


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("--learning-rate", "--lr"),
        ("--num_step", "--num-steps"),
        ("--model", "--policy"),
        ("--batch-size", "--groups-per-step"),
        ("--max-turn", "--max-turns"),
        ("--objective.baze", "--objective.base"),
    ],
)
def test_an_unknown_flag_gets_the_nearest(
    capsys: pytest.CaptureFixture, word: str, nearest: str
):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--recipe", "toy", word, "3"])
    assert stopped.value.code == 2
    flag = word.replace("_", "-")
    assert f"aipo: {flag}: did you mean {nearest}?" in capsys.readouterr().err


def test_rules_that_are_set_most_have_short_flags(capsys: pytest.CaptureFixture):
    words = ["--max-tokens", "77", "--max-turns=3", "--system-prompt", "Be brief."]
    words += ["--max-context-tokens", "900", "--consult-budget", "1"]
    assert main(["train", "--recipe", "toy", *words, "--print-config"]) == 0
    rules = json.loads(capsys.readouterr().out)["environment"]["rules"]
    assert rules == {
        "plain_prompt": "Be brief.",
        "consult_budget": 1,
        "max_turns": 3,
        "max_policy_tokens": 77,
        "max_context_tokens": 900,
    }


def test_help_needs_neither_torch_nor_transformers():
    for command in ("train", "eval", "runs", "report", "demo"):
        script = (
            "import sys; from aipo_env.cli import main\n"
            f"try: main([{command!r}, '--help'])\n"
            "except SystemExit: pass\n"
            "assert not {'torch', 'transformers'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_command_that_is_given_again_says_what_it_found(tmp_path: Path, capsys):
    out = tmp_path / "mine"
    words = ["train", "--recipe", "toy", "--out", str(out), "--num-steps", "1"]
    words += ["--groups-per-step", "2", "--group-size", "2"]
    assert main(words) == 0
    policy = out / "checkpoints" / "step-000001" / "policy"
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "mine  policy tiny, toy: loading"
    assert last == f"Done. Policy: {policy}"
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "mine  policy tiny, toy: loading",
        f"Done before, and nothing to do: {out} has made 1 of 1 steps. Policy:"
        f" {policy}. A larger --num-steps goes on.",
    ]


def test_a_checkpoint_to_start_from_needs_an_environment_and_no_policy(capsys):
    words = ["train", "--resume-from", "runs/x/checkpoints/step-000050"]
    assert main(words) == 2
    assert "no environment is named for the policy 'runs/x/che" in (
        capsys.readouterr().err
    )
    assert main([*words, "--environment", "toy"]) == 2
    assert "resume_from='runs/x/checkpoints/step-000050' is no checkpoint" in (
        capsys.readouterr().err
    )


def test_what_a_run_starts_from_is_among_the_options_of_train(capsys):
    with pytest.raises(SystemExit) as stop:
        train(["--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    for flag in (
        "--recipe STR",
        "--config",
        "--print-config",
        "--dry-run",
        "--ray INT",
    ):
        assert flag in told
    with pytest.raises(SystemExit):
        train(["--recipee", "toy"])
    assert "--recipee: did you mean --recipe?" in capsys.readouterr().err
