"""Groups that teach nothing, and those of other tasks that follow them in a step."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from aipo_env import (
    ConfigError,
    Episode,
    Key,
    ScriptedPolicy,
    TextVoice,
    build_scenario,
    run_sync,
)
from aipo_learner.policy.load import policy_folder
from aipo_learner.rollout.sampled import play_groups
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train


class WrongVoices:
    """Every voice answers 1; the keys of all are kept."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def voice(self, key: Key) -> TextVoice:
        self.keys.append(key)
        return TextVoice(policy=ScriptedPolicy(["\\boxed{1}"]).say)


def of_group_0(step: int, group: Sequence[Episode]) -> bool:
    return group[0].group_id.split("-")[1] == "0"


def play(
    voices: WrongVoices, step: int, groups: Sequence[int], **changes: Any
) -> list[Episode]:
    source = EpisodeSource(**changes)
    told = TrainConfig(groups_per_step=2, group_size=3, num_steps=4, source=source)
    limits = {"max_policy_tokens": 500, "max_context_tokens": 9000}
    scenario = build_scenario("toy", rules=limits)
    work = play_groups(
        told.rollouts, scenario, voices, step, groups, 0, is_constant=of_group_0
    )
    return run_sync(work)


def test_a_constant_group_is_followed_by_others_up_to_the_bound():
    episodes = play(WrongVoices(), 0, [0, 1], max_refills=2)
    ids = [episode.group_id for episode in episodes]
    assert ids == ["1-0"] * 3 + ["1-0-1"] * 3 + ["1-0-2"] * 3 + ["1-1"] * 3
    tasks = [episode.task.id for episode in episodes[::3]]
    assert len(set(tasks)) == 4
    assert [episode.aided for episode in episodes] == [True, True, False] * 4


def test_without_refills_a_step_is_one_wave():
    episodes = play(WrongVoices(), 0, [0, 1])
    assert [episode.group_id for episode in episodes] == ["1-0"] * 3 + ["1-1"] * 3


def test_no_key_and_no_task_is_used_twice_in_a_run():
    voices = WrongVoices()
    played = [
        episode
        for step in range(4)
        for episode in play(voices, step, [0, 1], max_refills=2)
    ]
    assert len(voices.keys) == len(set(voices.keys)) == len(played) == 48
    tasks = {episode.group_id: episode.task.id for episode in played}
    assert len(tasks) == len(set(tasks.values())) == 16


def test_what_follows_a_group_does_not_depend_on_who_plays_the_others():
    both, alone = WrongVoices(), WrongVoices()
    together = play(both, 1, [0, 1], max_refills=2)
    by_itself = play(alone, 1, [0], max_refills=2)
    assert set(alone.keys) < set(both.keys)
    texts = [episode.messages for episode in together if of_group_0(1, [episode])]
    assert texts == [episode.messages for episode in by_itself]


def config(out: Path, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "num_steps": 4,
        "keep_checkpoints": 4,
        "groups_per_step": 3,
        "group_size": 3,
        # With all replies it is always right, without any never.
        "independence": "accept_anneal",
        "anneal_from": 0.0,
        "num_threads": 1,
        "checkpoint_every": 1,
        "lr": 1e-3,
        "warmup_steps": 0,
        "loggers": "",
        "source": EpisodeSource(max_refills=2),
        "num_minibatches": 2,
    }
    return TrainConfig(out=out, **{**fields, **changes})


def test_a_resumed_run_refills_as_one_that_was_not_cut_off(tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config(whole), Console(quiet=True))
    shutil.copytree(whole, cut)
    for step in (3, 4):
        shutil.rmtree(cut / "checkpoints" / f"step-00000{step}")
    train(config(cut), Console(quiet=True))
    rows, again = (
        [
            {name: value for name, value in row.items() if "seconds" not in name}
            for row in read_metrics(out / "metrics.jsonl")
        ]
        for out in (whole, cut)
    )
    assert rows == again
    assert rows[2]["groups/refilled"] > 0
    assert rows[2]["rows"] > 0
    # None of them follows a group that teaches something.
    assert all(row["groups/constant"] >= row["groups/refilled"] for row in rows)
    first, second = (
        load_file(Path(policy_folder(str(out))) / "model.safetensors")
        for out in (whole, cut)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "other", [{"max_staleness": 1}, {"episodes": "a"}, {"sft_episodes": "a"}]
)
def test_only_what_is_sampled_when_it_is_due_is_refilled(other: dict[str, Any]):
    with pytest.raises(ConfigError, match="max_refills=1 needs episodes that are samp"):
        EpisodeSource(max_refills=1, **other)
