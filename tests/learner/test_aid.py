"""Who is aided, where what happened decides: which rollouts, by which keys, when."""

import json
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from aipo_env import (
    ConfigError,
    Environment,
    Episode,
    Key,
    ScriptedPolicy,
    Task,
    TextVoice,
    build_scenario,
    parse_rewards,
    run_sync,
    task_index,
)
from aipo_learner.build import build_training_scenario
from aipo_learner.cli import train as train_command
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.rollout.aid import (
    PlayedAlone,
    all_wrong,
    family_of,
    find_aid,
    is_below,
    played_alone,
    with_played,
)
from aipo_learner.rollout.independence import aided_flags, anneal
from aipo_learner.rollout.ray_workers import RayWorker, WorkerSettings
from aipo_learner.rollout.sampled import play_groups
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.settings.aid import AidSettings, read_aid
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

NUM_GROUPS = 3
GROUP_SIZE = 4
Right = Callable[[int, int], bool]
"""Says of a group and the number of a rollout whether it is answered right."""


class Voices:
    """Answers right where it is told to; keeps the keys in the order of the voices."""

    num_sampled = 0

    def __init__(self, is_right: Right) -> None:
        self.keys: list[Key] = []
        self._is_right = is_right
        source = build_scenario("toy").source
        self._answers = [
            source.task("train", task_index(source, "train", group, 0)).answer
            for group in range(NUM_GROUPS)
        ]

    def voice(self, key: Key) -> TextVoice:
        self.keys.append(key)
        _, _, group, rollout = key
        is_right = self._is_right(group, rollout)
        answer = self._answers[group] if is_right else "none"
        return TextVoice(policy=ScriptedPolicy([f"\\boxed{{{answer}}}"]).say)


def told(aid: Any, **changes: Any) -> TrainConfig:
    fields = {
        "independence": "mixed",
        "groups_per_step": NUM_GROUPS,
        "group_size": GROUP_SIZE,
        "num_steps": 10,
    }
    return TrainConfig(aid=aid, **{**fields, **changes})


def play(aid: Any, voices: Voices, **others: Any) -> list[Episode]:
    limits = {"max_policy_tokens": 500, "max_context_tokens": 9000}
    scenario = build_scenario("toy", rules=limits)
    groups = others.pop("groups", range(NUM_GROUPS))
    config = told(aid, **others.pop("changes", {}))
    work = play_groups(config.rollouts, scenario, voices, 0, groups, 0, **others)
    return run_sync(work)


def aided_by_group(episodes: list[Episode]) -> dict[str, list[bool]]:
    groups: dict[str, list[bool]] = {}
    for episode in episodes:
        groups.setdefault(episode.group_id, []).append(episode.aided)
    return groups


def only_the_last_of_group_1(group: int, rollout: int) -> bool:
    return (group, rollout) == (1, 3)


def test_all_wrong_plays_no_aided_rollout_where_one_unaided_succeeded():
    voices = Voices(only_the_last_of_group_1)
    episodes = play("all_wrong", voices)
    assert aided_by_group(episodes) == {
        "1-0": [True, True, False, False],
        "1-1": [False, False, False, False],
        "1-2": [True, True, False, False],
    }
    # The unaided ones of all groups first; then the rest, by keys of their own.
    assert [key[2:] for key in voices.keys] == [
        *((group, rollout) for group in range(3) for rollout in (2, 3)),
        *((group, rollout) for group in range(3) for rollout in (0, 1)),
    ]


def test_what_is_right_with_help_alone_decides_nothing():
    episodes = play("all_wrong", Voices(lambda group, rollout: rollout < 2))
    assert aided_by_group(episodes)["1-1"] == [True, True, False, False]


def test_an_aided_group_is_the_one_that_a_share_would_play():
    def never(group: int, rollout: int) -> bool:
        return False

    shared = play("share:0.5", Voices(never))
    assert [episode.to_dict() for episode in play("all_wrong", Voices(never))] == [
        episode.to_dict() for episode in shared
    ]


def test_who_is_aided_does_not_depend_on_who_plays_the_other_groups():
    together = play("all_wrong", Voices(only_the_last_of_group_1))
    alone = [
        episode
        for group in range(NUM_GROUPS)
        for episode in play(
            "all_wrong", Voices(only_the_last_of_group_1), groups=[group]
        )
    ]
    assert aided_by_group(alone) == aided_by_group(together)


@pytest.mark.parametrize(
    ("aid", "group_size", "step", "num_aided"),
    [
        ("all_wrong", 4, 0, 2),
        ("all_wrong:share=0.75", 4, 0, 3),
        ("all_wrong:0.25", 4, 0, 1),
        # One is left to play alone, whatever is rounded.
        ("all_wrong:share=0.9", 4, 0, 3),
        ("competence:0.5,share=0.25", 8, 0, 2),
        ("all_wrong", 4, 9, 0),
    ],
)
def test_so_many_rollouts_wait_for_the_others(
    aid: str, group_size: int, step: int, num_aided: int
):
    settings = told(aid, group_size=group_size).rollouts
    share = settings.aid.share or 0.5
    assert sum(aided_flags(settings, share, step)) == num_aided


def test_a_group_with_a_failed_rollout_asks_nobody():
    class Failing(Voices):
        def voice(self, key: Key) -> TextVoice:
            if key[2:] == (0, 3):
                return TextVoice(policy=self.break_down)
            return super().voice(key)

        def break_down(self, *told: Any) -> str:
            raise RuntimeError("out of order")

    episodes = play("all_wrong", Failing(lambda group, rollout: False))
    assert aided_by_group(episodes)["1-0"] == [False] * 4
    assert aided_by_group(episodes)["1-1"] == [True, True, False, False]


def test_groups_that_follow_constant_ones_are_played_in_two_waves_as_well():
    class AnyTask(Voices):
        def voice(self, key: Key) -> TextVoice:
            self.keys.append(key)
            return TextVoice(policy=ScriptedPolicy(["\\boxed{none}"]).say)

    voices = AnyTask(lambda group, rollout: False)
    sizes = []

    def is_first(step: int, group: Any) -> bool:
        sizes.append([episode.aided for episode in group])
        return group[0].group_id == "1-0"

    episodes = play(
        "all_wrong",
        voices,
        groups=[0, 1],
        changes={"source": EpisodeSource(max_refills=2)},
        is_constant=is_first,
    )
    assert aided_by_group(episodes) == {
        name: [True, True, False, False] for name in ("1-0", "1-0-1", "1-1")
    }
    assert sizes == [[True, True, False, False]] * 3
    million = 1_000_000
    assert [key[3] for key in voices.keys[-4:]] == [
        million + rollout for rollout in (2, 3, 0, 1)
    ]


def episode(is_right: bool, aided: bool = False, **meta: Any) -> Episode:
    right = Voices(lambda group, rollout: is_right)
    made = play("share:0", right, groups=[0])[0]
    task = replace(made.task, meta={**made.task.meta, **meta})
    return replace(made, task=task, aided=aided)


def test_running_success_is_a_mean_in_which_older_rollouts_fade():
    wrong, right = episode(False), episode(True)
    name = wrong.task.id
    after = with_played({}, [wrong, wrong, right, wrong])
    assert after == {name: (0.25, 4)}
    after = with_played(after, [right] * 4)
    assert after == {name: (0.625, 8)}
    assert with_played({name: (0.0, 16)}, [right] * 16) == {name: (0.5, 16)}
    assert with_played({name: (0.0, 16)}, [right] * 48) == {name: (0.75, 16)}


def test_only_unaided_rollouts_with_a_verdict_count_and_in_any_order():
    wrong, right = episode(False), episode(True)
    failed = replace(right, reward=None, verdict=None)
    helped = replace(right, aided=True)
    counted = with_played({}, [right, failed, helped, wrong, wrong])
    assert counted == {wrong.task.id: (1 / 3, 3)}
    assert with_played({}, [wrong, wrong, right]) == counted
    before = {"another": (0.5, 2)}
    assert with_played(before, [helped, failed]) == before


def test_a_family_is_named_by_the_tasks_meta():
    task = episode(False, topic="sums", level=2).task
    assert family_of(task, "") == task.id
    assert family_of(task, "topic") == 'topic="sums"'
    assert family_of(task, "level") == "level=2"
    assert family_of(task, "absent") == task.id
    assert family_of(replace(task, meta={"level": "2"}), "level") == 'level="2"'


@pytest.mark.parametrize(
    ("before", "rights", "competence", "is_aided"),
    [
        ({}, [False, False], 0.0, True),
        ({}, [True, False], 0.5, False),
        # It was lost until now, and this time half of it was won.
        ((0.0, 2), [True, False], 0.25, False),
        ((0.0, 6), [True, False], 0.125, True),
        ((1.0, 16), [False, False], 16 / 18, False),
    ],
)
def test_a_group_is_aided_where_its_running_success_is_below(
    before: Any, rights: list[bool], competence: float, is_aided: bool
):
    alone = [episode(is_right) for is_right in rights]
    known = {alone[0].task.id: before} if before else {}
    group = played_alone(alone, known, step=3, num_steps=10)
    assert group.competence == competence
    assert is_below(group, 0.25) is is_aided
    assert find_aid(read_aid("competence:0.25"))(group) is is_aided


def test_competence_is_of_the_family_before_the_step_and_of_the_group_itself():
    kinds: dict[str, str] = {}
    for each in play("share:0", Voices(lambda group, rollout: False)):
        kinds[each.group_id] = family_of(each.task, "bottleneck")
    # The kinds take turns, so that each group is of its own.
    assert len(set(kinds.values())) == NUM_GROUPS
    known = {kinds["1-0"]: (1.0, 16), kinds["1-2"]: (0.2, 16)}
    episodes = play(
        "competence:0.5,family=bottleneck",
        Voices(only_the_last_of_group_1),
        competence=known,
    )
    assert {name: sum(of) for name, of in aided_by_group(episodes).items()} == {
        # 16 of 18, half of 2, and 3.2 of 18.
        "1-0": 0,
        "1-1": 0,
        "1-2": 2,
    }


def hardest_only(group: PlayedAlone) -> bool:
    return group.task.meta["bottleneck"] == "knowledge"


def never_says(group: PlayedAlone) -> str:
    return "yes"


def breaks(group: PlayedAlone) -> bool:
    raise KeyError("level")


NO_FUNCTION = 3


def test_a_function_of_ones_own_decides():
    found = play(f"{__name__}:hardest_only", Voices(lambda group, rollout: True))
    kinds = {each.group_id: each.task.meta["bottleneck"] for each in found}
    assert {name: any(of) for name, of in aided_by_group(found).items()} == {
        name: kind == "knowledge" for name, kind in kinds.items()
    }
    assert set(kinds.values()) > {"knowledge"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("never_says", "returned 'yes' for the task 'toy-.*must say True or False"),
        ("breaks", "raised KeyError for the task 'toy-.*Correct the function"),
        ("NO_FUNCTION", "is int: it must be a function that takes a PlayedAlone"),
        ("absent", "cannot be loaded: AttributeError"),
    ],
)
def test_a_function_that_cannot_decide_is_named(name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        play(f"{__name__}:{name}", Voices(lambda group, rollout: False))


def test_what_decides_is_found_before_the_run_has_a_folder(tmp_path: Path):
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="cannot be loaded"):
        train(told("json:no_such_thing", out=out), Console(quiet=True))
    assert not out.exists()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("share", AidSettings()),
        ("share:0.5", AidSettings(share=0.5)),
        ("share:1", AidSettings(share=1.0)),
        ("share:share=0", AidSettings(share=0.0)),
        ({"type": "share", "share": 0.25}, AidSettings(share=0.25)),
        ("all_wrong", AidSettings(kind="all_wrong")),
        (
            "competence:0.25,family=topic,share=0.75",
            AidSettings(kind="competence", below=0.25, family="topic", share=0.75),
        ),
        (
            {"type": "competence", "below": 0.25},
            AidSettings(kind="competence", below=0.25),
        ),
        ("json:loads", AidSettings(kind="json:loads")),
        ("json:loads:share=0.25", AidSettings(kind="json:loads", share=0.25)),
        (
            {"type": "json:loads", "family": "topic"},
            AidSettings(kind="json:loads", family="topic"),
        ),
    ],
)
def test_aid_is_read(spec: Any, expected: AidSettings):
    assert read_aid(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("share:half", "share='half' must be a number from 0 to 1"),
        ("share:1.5", "share='1.5' must be a number from 0 to 1"),
        ("share:nan", "share='nan' must be a number from 0 to 1"),
        ({"type": "share", "share": True}, "share=True must be a number from 0 to 1"),
        ("share:0.5,share=0.5", "gives share twice"),
        ("all_wrongs", "Did you mean 'all_wrong'?"),
        ("", "aid=''"),
        (3, "3 is no spec"),
        (None, "None is no spec"),
        ("all_wrong:below=0.5", "has no option 'below'. Valid: share."),
        ("all_wrong:1", "share=1 must be above 0"),
        ("all_wrong:share=0", "share=0 must be above 0"),
        ("competence", "must say below which running success, above 0, a task"),
        ("competence:0", "must say below which running success, above 0, a task"),
        ("competence:share=0.5", "must say below which running success"),
        (0.5, "0.5 is no spec"),
        ({"share": 0.5}, "needs a 'type'"),
        ("no_such_module_here:function", "Valid: all_wrong, competence, share."),
        ("competence:2", "below='2' must be a number from 0 to 1"),
        ("competence:0.5,familly=a", "Did you mean 'family'?"),
        ({"type": "competence", "below": 0.5, "family": 3}, "family=3 must be a key"),
        ("json:loads:below=0.5", "has no option 'below'. Valid: family, share."),
    ],
)
def test_an_aid_that_cannot_be_used_is_named(spec: Any, message: str):
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict({"aid": spec})
    assert message in str(caught.value)


@pytest.mark.parametrize("independence", ["prompt_switch", "accept_anneal"])
def test_nobody_decides_where_every_rollout_may_consult(independence: str):
    with pytest.raises(ConfigError, match="in which every rollout may consult"):
        told("all_wrong", independence=independence)


def test_a_share_that_is_no_rollout_is_named():
    with pytest.raises(ConfigError, match="share=0.1 of group_size=4 is no rollout"):
        told("all_wrong:0.1", group_size=4)
    assert told("all_wrong:0.1", group_size=8).rollouts.aid.share == 0.1


def test_a_share_is_written_in_one_form():
    for values in (
        {"aided_share": 1},
        {"aided_share": 1.0},
        {"aid": "share:1"},
        {"aid": {"type": "share", "share": 1}},
    ):
        assert TrainConfig.from_dict(values).aid == "share:1.0"
    assert TrainConfig.from_dict({"aided_share": None}).aid == "share"


def test_settings_of_old_files_go_on_working(tmp_path: Path):
    for share in (-0.1, "half", True):
        with pytest.raises(ConfigError, match="aided_share=.* must be a number from 0"):
            TrainConfig.from_dict({"aided_share": share})
    with pytest.raises(ConfigError, match="aided_share=X is short for aid='share:X'"):
        TrainConfig.from_dict({"aided_share": 0.5, "aid": "all_wrong"})


def printed(capsys: pytest.CaptureFixture, *words: str) -> Mapping[str, Any]:
    train_command(["--recipe", "toy", "--print-config", *words])
    return json.loads(capsys.readouterr().out)


def test_the_share_is_given_on_the_command_line_as_before(capsys):
    assert printed(capsys)["aid"] == "share"
    assert printed(capsys, "--aided-share", "0.25")["aid"] == "share:0.25"
    assert printed(capsys, "--aided_share=0")["aid"] == "share:0.0"
    assert printed(capsys, "--aid", "all_wrong")["aid"] == "all_wrong"
    spec = '{"type": "competence", "below": 0.5}'
    assert printed(capsys, "--aid", spec)["aid"] == json.loads(spec)
    for words, message in (
        (["--aided-share", "x"], "--aided-share 'x' must be a number from 0 to 1"),
        (["--aided-share"], "--aided-share '' must be a number"),
        (["--aided-share", "1", "--aid", "share"], "Leave one of them out"),
    ):
        with pytest.raises(ConfigError, match=message):
            printed(capsys, *words)


def test_a_worker_is_told_the_running_success(tmp_path: Path):
    model, tokenizer = load_policy(policy_folder("tiny"))
    aid = "competence:0.5,family=bottleneck"
    settings = WorkerSettings(
        rollouts=told(aid).rollouts, max_sampler_gap=0.5, journal=tmp_path / "journal"
    )

    def build() -> Any:
        return model, HFSampler(model.eval(), tokenizer), build_scenario("toy")

    worker = RayWorker(settings, build)
    weights = [parameter.detach().numpy() for parameter in model.parameters()]
    kinds = [f'bottleneck="{kind}"' for kind in ("knowledge", "reason", "verify")]
    known = {kinds[0]: (1.0, 16), kinds[1]: (1.0, 16)}
    groups = aided_by_group(worker.play(weights, 0, range(NUM_GROUPS), 0, known))
    # The tiny policy alone is never right.
    assert sorted(any(of) for of in groups.values()) == [False, False, True]
    unknown = aided_by_group(worker.play(weights, 0, range(NUM_GROUPS), 0))
    assert [sum(of) for of in unknown.values()] == [2, 2, 2]


def test_help_is_wanted_where_somebody_answers():
    for aid in ("all_wrong", "share:0.5", "competence:0.5"):
        config = told(aid, environment={"source": "toy", "agents": "none"})
        with pytest.raises(ConfigError, match="with nobody to consult"):
            build_training_scenario(config, None)
    for aid in ("share", "share:0"):
        config = told(aid, environment={"source": "toy", "agents": "none"})
        build_training_scenario(config, None)


def test_a_family_that_no_task_has_is_named():
    with pytest.raises(
        ConfigError, match="has 'topic' in its meta, which has 'bottleneck', 'diff"
    ):
        build_training_scenario(told("competence:0.5,family=topic"), None)


def test_acceptance_falls_as_one_over_the_step():
    def values(start: float, num_steps: int) -> list[float]:
        source = EpisodeSource(anneal_shape="inverse")
        settings = told(
            "share", anneal_from=start, num_steps=num_steps, source=source
        ).rollouts
        return [anneal(settings, step) for step in range(num_steps)]

    assert values(0.0, 5) == [1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert values(0.5, 6) == [1.0, 1.0, 1.0, 1.0, 1 / 2, 1 / 3]
    # It begins within a step: the next is the first.
    assert values(0.5, 5) == [1.0, 1.0, 1.0, 1.0, 1 / 2]
    with pytest.raises(ConfigError, match="anneal_shape='cosine'. Valid: inverse, lin"):
        EpisodeSource(anneal_shape="cosine")


def now_and_then(task: Task, text: str) -> bool:
    """Be right for a third of all texts: the tiny policy alone would never be."""
    return zlib.crc32(text.encode()) % 3 == 0


def config(out: Path, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "environment": Environment(verifier=parse_rewards(f"{__name__}:now_and_then")),
        "num_steps": 3,
        "keep_checkpoints": 3,
        "groups_per_step": 3,
        "group_size": 4,
        "independence": "mixed",
        "anneal_from": 1.0,
        "num_threads": 1,
        "checkpoint_every": 1,
        "lr": 1e-3,
        "warmup_steps": 0,
        "loggers": "",
        "stop_after_idle_steps": 0,
    }
    return TrainConfig(out=out, **{**fields, **changes})


def measured(out: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if "seconds" not in name}
        for row in read_metrics(out / "metrics.jsonl")
    ]


@pytest.mark.parametrize(
    ("aid", "source"),
    [
        ("competence:0.05,family=bottleneck", EpisodeSource(max_staleness=1)),
        pytest.param(
            "competence:0.3,family=bottleneck", EpisodeSource(), marks=pytest.mark.slow
        ),
        pytest.param("all_wrong", EpisodeSource(max_refills=1), marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_aids_as_one_that_was_not_cut_off(
    tmp_path: Path, aid: str, source: EpisodeSource
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config(whole, aid=aid, source=source), Console(quiet=True))
    shutil.copytree(whole, cut)
    for step in (2, 3):
        shutil.rmtree(cut / "checkpoints" / f"step-00000{step}")
    train(config(cut, aid=aid, source=source), Console(quiet=True))
    assert measured(cut) == measured(whole)
    assert {"aided_groups", "success/unaided"} <= set(measured(whole)[0])
    first, second = (
        load_file(Path(policy_folder(str(out))) / "model.safetensors")
        for out in (whole, cut)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_checkpoint_has_the_success_of_all_that_was_sampled(tmp_path: Path):
    aid = "competence:0.05,family=bottleneck"
    train(config(tmp_path, aid=aid, num_steps=2), Console(quiet=True))
    files = [
        json.loads((tmp_path / "checkpoints" / step / "competence.json").read_text())
        for step in ("step-000001", "step-000002")
    ]
    kinds = [f'bottleneck="{kind}"' for kind in ("knowledge", "reason", "verify")]
    # Every group has its two unaided rollouts, and those that were not aided.
    assert [sorted(file) for file in files] == [kinds, kinds]
    assert all(2 <= num <= 4 for _, num in files[0].values())
    assert all(4 <= num <= 8 for _, num in files[1].values())
    train(config(tmp_path / "other", aid="all_wrong", num_steps=1), Console(quiet=True))
    assert not list((tmp_path / "other").rglob("competence.json"))


def test_a_run_that_had_a_share_before_it_was_called_aid_goes_on(tmp_path: Path):
    train(config(tmp_path, aid="share:0.5", num_steps=1), Console(quiet=True))
    path = tmp_path / "config.json"
    row = json.loads(path.read_text())
    assert row.pop("aid") == "share:0.5"
    path.write_text(json.dumps({**row, "aided_share": 0.5}))
    train(config(tmp_path, aid="share:0.5", num_steps=2), Console(quiet=True))
    assert len(measured(tmp_path)) == 2
    assert "aided_groups" not in measured(tmp_path)[0]


def test_all_wrong_is_a_function_of_the_group_alone():
    wrong, right = episode(False), episode(True)
    made = played_alone([wrong, right], {}, step=0, num_steps=1)
    assert all_wrong(made) is False
    assert all_wrong(replace(made, episodes=[wrong])) is True
