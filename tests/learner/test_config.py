"""Settings: what is refused, with which words."""

import dataclasses
import datetime
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from aipo_env import ConfigError, read_spec
from aipo_learner.build import read_sampler
from aipo_learner.settings.chat import ChatSettings
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.recipes import RECIPES, toy, toy_base, toy_masked
from aipo_learner.settings.teacher import read_teacher
from aipo_learner.settings.train import TrainConfig


def test_a_run_has_at_most_forty_fields():
    assert len(dataclasses.fields(TrainConfig)) <= 40


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_json(name):
    config = RECIPES[name]()
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_arms_of_the_demo_differ_in_one_thing_each():
    aipo, masked, base = toy().to_dict(), toy_masked().to_dict(), toy_base().to_dict()
    assert {k for k in aipo if aipo[k] != masked[k]} == {
        "objective",
        "stop_after_idle_steps",
    }
    changed = {
        k for k in aipo["objective"] if aipo["objective"][k] != masked["objective"][k]
    }
    assert changed == {"agent_rule"}
    assert {k for k in aipo if aipo[k] != base[k]} == {
        "environment",
        "aid",
        "stop_after_idle_steps",
    }
    assert base["environment"] == {"agents": "none"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"independence": "mixd"}, "Did you mean 'mixed'?"),
        ({"baseline": "group"}, "Valid: per_mode, split, union."),
        ({"aided_share": 1.5}, "aided_share=1.5 must be a number from 0 to 1"),
        ({"num_steps": 0}, "num_steps=0 must be a whole number, 1 or more."),
        ({"group_size": 1}, "group_size=1 must be a whole number, 2 or more."),
        ({"lr": -1.0}, "lr=-1.0 must be a finite number above 0."),
        ({"seed": -1}, "seed=-1 must be a whole number, 0 or more."),
        ({"num_steps": 2.5}, "num_steps=2.5 must be a whole number, 1 or more."),
        ({"lr": math.inf}, "lr=inf must be a finite number above 0."),
        ({"num_threads": True}, "num_threads=True must be a whole number, 1 or more."),
        (
            {"evaluation": {"patience": -1}},
            "config: evaluation.patience=-1 must be a whole number, 0 or more.",
        ),
        (
            {"compute": {"lora_rank": 4, "lora_alpha": 0}},
            "compute.lora_alpha=0 must be a finite number above 0, or left out.",
        ),
        (
            {"compute": {"lora_rank": 4, "lora_targets": "q_proj,"}},
            "compute.lora_targets='q_proj,' must be names of layers with commas",
        ),
        (
            {"compute": {"lora_rank": 4, "lora_targets": ["q_proj"]}},
            "compute.lora_targets=['q_proj'] must be names of layers with commas",
        ),
        (
            {"compute": {"lora_rank": 4, "lora_adapter": 3}},
            "compute.lora_adapter=3 must be the path of a folder.",
        ),
        (
            {"compute": {"lora_targets": "q_proj"}},
            "compute.lora_targets='q_proj' without adapters. Set compute.lora_rank",
        ),
        (
            {"compute": {"lora_adapter": "runs/a"}},
            "compute.lora_adapter='runs/a' without adapters. Set compute.lora_rank",
        ),
        ({"rules": [1]}, "'rules' belongs to the environment"),
        ({"environment": {"rules": [1]}}, "[1] must be an object of names and values."),
        ({"environment": {"sorce": "toy"}}, "Did you mean 'source'"),
        ({"environment": 3}, "environment=3 must be an id"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict(change)
    assert message in str(caught.value)


def test_unknown_keys_suggest_the_nearest():
    with pytest.raises(
        ConfigError,
        match=(
            "config: there is no option 'group_sise'. Valid: .* Did you mean"
            " 'group_size'?"
        ),
    ):
        TrainConfig.from_dict({"group_sise": 4})
    with pytest.raises(ConfigError, match="objective.*'flor'.*Did you mean 'floor'?"):
        TrainConfig.from_dict({"objective": {"flor": 0.2}})


def test_specs_from_the_command_line():
    assert read_spec("toy:difficulty=2") == "toy:difficulty=2"
    assert read_spec('{"type": "toy", "difficulty": 2}') == {
        "type": "toy",
        "difficulty": 2,
    }


def test_out_is_a_path():
    assert TrainConfig.from_dict({"out": "runs/x"}).out == Path("runs/x")


def test_a_samplers_spec_is_read_by_name():
    assert read_sampler("transformers") == ("transformers", {})
    served = ("vllm", {"url": "http://HOST:8000", "weights": "transfer"})
    assert read_sampler("vllm:http://HOST:8000,weights=transfer") == served
    named = {"type": "vllm-serve", "max_num_seqs": 8}
    assert read_sampler(named) == ("vllm-serve", {"max_num_seqs": 8})
    for spec in ("transformers:temperature=0.5", "transformers:thread=1"):
        with pytest.raises(ConfigError, match="is a setting of the run, not of"):
            read_sampler(spec)
    with pytest.raises(ConfigError, match="no 'vlm'.*Did you mean 'vllm'"):
        read_sampler("vlm")


def itself() -> list[Any]:
    held: list[Any] = []
    held.append(held)
    return held


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"date": datetime.date(2025, 1, 1)}, "'date' is .*2025.* a date in quotes"),
        ({"at": [{"time": datetime.time(9)}]}, "'at' is .* a date in quotes"),
        ({1: 2}, "the name 1 must be text"),
        ({None: 2}, "the name None must be text"),
        ({"x": float("nan")}, "'x' is nan, which JSON has no form for"),
        ({"x": [-float("inf")]}, "which JSON has no form for"),
        ({"x": {"y"}}, "which JSON has no form for"),
        ({"x": b"y"}, "which JSON has no form for"),
        ({"x": "\ud800"}, "which JSON has no form for"),
        ({"x": itself()}, "which JSON has no form for"),
        ([1], "must be an object of names and values"),
    ],
)
def test_values_of_a_template_are_json(values: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        ChatSettings(chat_template_kwargs=values)
    given = {"a": [1, 2.5, None, {"b": True}], "date_string": "1 Jan \u2603"}
    assert ChatSettings(chat_template_kwargs=given).chat_template_kwargs == given


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observation_weight": -0.1}, "observation_weight=-0.1 must be a finite"),
        ({"observation_weight": math.nan}, "observation_weight=nan must be a finite"),
        ({"observation_authors": "tool"}, "must be a list of names. Valid: agent, env"),
        ({"observation_authors": ["tol"]}, "has 'tol'. .*Did you mean 'tool'"),
        ({"observation_authors": ["policy"]}, "has 'policy'. Valid: agent, env, tool."),
        ({"observation_authors": [None]}, "has None"),
        ({"observation_authors": None}, "observation_authors=None must be a list"),
        (
            {"observation_authors": [], "observation_weight": 0.05},
            "leaves nothing to learn",
        ),
        ({"observation_episodes": "right"}, "Valid: all, correct."),
        (
            {"observation_authors": ["tool", "agent"], "observation_weight": 0.05},
            "has 'agent', whose tokens agent_rule='floored' weighs already",
        ),
    ],
)
def test_observations_that_cannot_be_learned_are_refused(
    settings: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": "self:anwser"}, "Did you mean 'self:answer'"),
        ({"teacher": "self"}, "Valid: self:answer, self:replies, self:verdict, vllm:"),
        ({"teacher": "self:"}, "objective.teacher='self:'. Valid: self:answer"),
        ({"teacher": "self:Answer"}, "Did you mean 'self:answer'"),
        ({"teacher": "openai:gpt@http://h"}, "Or a model: its folder, or OWNER/NAME"),
        ({"teacher": "vllm"}, "names no server: write its address, vllm:http://HOST"),
        ({"teacher": "vllm:host:8000"}, "names no server"),
        ({"teacher": "vllm:http://h:1,startup=5"}, "Did you mean 'startup_s'"),
        ({"teacher": "vllm:http://h:1,startup_s=0"}, "must be a number of seconds"),
        ({"teacher": "vllm:http://h:1,request_s=x"}, "request_s='x' must be a number"),
        ({"teacher": 3}, "objective.teacher=3 must be a text"),
        ({"teacher": None}, "objective.teacher=None must be a text"),
        ({"teacher": " "}, "objective.teacher=' ' must be a text"),
        ({"teacher_weight": 0.5}, "teacher_weight=0.5 without a teacher"),
        ({"teacher_when": "correct"}, "teacher_when='correct' without a teacher"),
        ({"advantage_weight": 0.0}, "advantage_weight=0.0 without a teacher"),
        ({"teacher": "tiny", "teacher_when": "wrong"}, "Valid: all, correct, failed."),
        ({"teacher": "tiny", "teacher_weight": -1.0}, "must be a finite number, 0 or"),
        ({"teacher": "tiny", "teacher_weight": math.nan}, "teacher_weight=nan must be"),
        (
            {"teacher": "tiny", "teacher_weight": 0.0, "advantage_weight": 0.0},
            "leaves nothing to learn from",
        ),
    ],
)
def test_a_teacher_that_is_none_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**settings)


def test_a_teacher_is_the_policy_a_server_or_a_model(tmp_path: Path):
    assert read_teacher("self:verdict") == ("self", {"shown": "verdict"})
    assert read_teacher("vllm:http://h:8000,request_s=60") == (
        "vllm",
        {"url": "http://h:8000", "request_s": 60},
    )
    assert read_teacher("OWNER/NAME") == ("model", {"path": "OWNER/NAME"})
    # A folder may have any name.
    named = tmp_path / "self:x"
    named.mkdir()
    assert read_teacher(str(named)) == ("model", {"path": str(named)})


def test_a_teacher_survives_json_and_can_be_taken_away():
    told = {"teacher": "self:answer", "teacher_when": "failed", "advantage_weight": 0}
    config = TrainConfig.from_dict({"objective": {"floor": 0.2, **told}})
    written = json.loads(json.dumps(config.to_dict()))
    assert TrainConfig.from_dict(written) == config
    assert config.objective.has_teacher
    assert not ObjectiveConfig().has_teacher
    assert not ObjectiveConfig(teacher="self:answer", teacher_weight=0.0).has_teacher
    assert config.objective.without_teacher() == ObjectiveConfig(floor=0.2)


def test_authors_from_a_file_are_those_of_the_command_line():
    settings = {
        "objective": {
            "agent_rule": "masked",
            "observation_weight": 0.05,
            "observation_authors": ["tool", "agent"],
        }
    }
    config = TrainConfig.from_dict(settings)
    assert config.objective.observation_authors == ("tool", "agent")
    written = json.loads(json.dumps(config.to_dict()))
    assert TrainConfig.from_dict(written) == config


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("kl_ref", "objective.kl_coef=0.0"),
        ("observation_loss", "objective.observation_weight=0.0"),
        ("observation_tokens", "objective.observation_weight=0.0"),
        ("observation_p_mean", "objective.observation_weight=0.0"),
        ("observation_gradient_share", "objective.observation_weight=0.0"),
        ("kl_sampler/agent_free", "independence='mixed'"),
        ("effective_sample_size/agent_free", "independence='mixed'"),
    ],
)
def test_a_bound_that_could_never_act_is_refused(name: str, cause: str):
    message = f"bounds has '{name}', which no update reports with {re.escape(cause)}"
    with pytest.raises(ConfigError, match=message):
        TrainConfig(bounds={name: [0.1, None]}, independence="mixed")
    objective = ObjectiveConfig(kl_coef=0.1, observation_weight=0.05)
    told = TrainConfig(
        bounds={name: [0.1, None]}, independence="internalised", objective=objective
    )
    assert told.bounds == {name: [0.1, None]}


@pytest.mark.parametrize(
    "name", ["kl_ref", "kl_sampler", "effective_sample_size", "agent_p_mean"]
)
def test_of_imitation_no_bound_is_taken_that_could_never_act(name: str):
    with pytest.raises(ConfigError, match=f"'{name}', which .* with sft_episodes"):
        TrainConfig(
            bounds={name: [0.1, None]},
            objective=ObjectiveConfig(kl_coef=0.1),
            source=EpisodeSource(sft_episodes="a.jsonl"),
        )


def test_imitation_has_no_term_of_observation_tokens():
    with pytest.raises(ConfigError, match=r"observation_weight=0.05 with sft_episodes"):
        TrainConfig(
            objective=ObjectiveConfig(observation_weight=0.05),
            source=EpisodeSource(sft_episodes="a.jsonl"),
        )
