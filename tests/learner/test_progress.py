"""What a run says while it works: first words, the line within a step, the step's."""

import io
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from aipo_env import run_sync
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.rollout.meter import RolloutMeter
from aipo_learner.rollout.waves import play_wave
from aipo_learner.run.checkpoint_size import checkpoint_bytes
from aipo_learner.run.found import num_bytes
from aipo_learner.run.metrics_log import MetricsLog
from aipo_learner.run.progress import SILENT, Progress, WorkCount
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.settings.checkpoints import CheckpointConfig
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.optimizer import OptimizerConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

PATIENCE_S = 20.0


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; other threads make it so."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_in_a_file_a_plain_line_comes_first_soon_and_then_seldom():
    said = io.StringIO()
    console = Console(file=said, width=40)
    count = WorkCount("update", 7)
    count.add()
    with Progress(console, first_s=0, every_s=600) as progress:
        progress.begin("mine  step 3/100")
        sampling = progress.part(lambda: "rollouts 37/192 · 4.1k tok/s")
        with sampling, progress.part(count.text):
            until(lambda: bool(said.getvalue()))
            time.sleep(0.6)
    # Whole, though it is longer than the console is wide; and no second one.
    assert said.getvalue() == (
        "mine  step 3/100  rollouts 37/192 · 4.1k tok/s · update 1/7\n"
    )


def test_what_is_told_elsewhere_needs_no_plain_line():
    said = io.StringIO()
    with Progress(Console(file=said), first_s=0.5, every_s=600) as progress:
        progress.begin("mine  step 1/2")
        # The line of step 1 was printed, and the first is not yet due.
        progress.begin("mine  step 2/2")
        with progress.part(lambda: "saving"):
            time.sleep(1.0)
    assert said.getvalue() == ""


def test_on_a_terminal_the_line_changes_and_disappears():
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=30)
    looks = iter(range(1, 1_000_000))
    rollouts = lambda: f"rollouts {next(looks)}/192 [bold] " + "x" * 90  # noqa: E731
    with Progress(console) as progress, progress.part(rollouts):
        until(lambda: "rollouts 2/192" in said.getvalue())
        console.print("step 1/2  reward 0.50", highlight=False)
    shown = said.getvalue()
    # Cut at the edge, as it reads, and each look in the place of the one before.
    assert "rollouts 2/192 [bold] xxxxxxx…" in shown
    assert shown.count("\x1b[2K") >= 2
    # What is there in the end: the cursor is back, on an empty line below the step's.
    assert "step 1/2  reward 0.50" in shown
    assert shown.rindex("\x1b[2K") > shown.rindex("rollouts")


def test_a_quiet_console_has_no_thread_and_notes_are_said_at_once():
    with SILENT as progress, progress.part(lambda: "loading"):
        names = [thread.name for thread in threading.enumerate()]
        assert "aipo-progress" not in names
    said = io.StringIO()
    with Progress(Console(file=said)) as progress:
        progress.note("finishing this step")
        until(lambda: said.getvalue() == "finishing this step\n")


def test_rollouts_say_how_many_how_fast_and_how_many_were_cut(
    model, tokenizer, scenario
):
    sampler = HFSampler(model, tokenizer)
    meter = RolloutMeter("rollouts", sampler, total=4)
    assert meter.text() == "rollouts 0/4"
    sessions = [
        scenario.rollout("train", 0, 0, number, aided=False) for number in range(4)
    ]
    episodes = run_sync(play_wave(scenario, sessions, sampler, meter=meter))
    num_tokens = sum(int(episode.tokens.policy_mask.sum()) for episode in episodes)
    assert sampler.num_sampled == num_tokens > 0
    num_cut = sum(episode.stop_reason.is_truncated for episode in episodes)
    said = re.fullmatch(r"rollouts 4/4 · (\S+) tok/s · truncated (\d+) %", meter.text())
    assert said is not None
    assert int(said[2]) == 25 * num_cut
    sampler.close()


def lines_of_step(row: dict[str, float], tmp_path: Path, **options: bool) -> str:
    said = io.StringIO()
    out = tmp_path / "mine"
    out.mkdir()
    log = MetricsLog(out, Console(file=said, width=40), num_steps=100, **options)
    log.write(3, row, tokens_per_second=4123.0)
    log.close()
    return said.getvalue()


ROW = {
    "rows": 9,
    "reward": 0.5,
    "success/unaided": 0.25,
    "success/aided": 0.75,
    "loss": -0.01234,
    "entropy": 1.234,
    "policy_tokens_per_episode": 212.3,
    "truncated": 0.12,
    "lr": 1e-6,
}


def test_a_step_says_what_it_came_to_in_one_line(tmp_path: Path):
    assert re.sub(r"\S+ min", "M min", lines_of_step(ROW, tmp_path)) == (
        "mine  step 3/100  reward 0.50  alone 0.25  aided 0.75  loss -0.0123"
        "  entropy 1.23  length 212  truncated 12 %  lr 1e-06  4.1k tok/s  M min left\n"
    )


def test_of_stored_episodes_it_says_nothing_that_is_not_the_policys(tmp_path: Path):
    line = lines_of_step(ROW, tmp_path, is_stored=True)
    assert re.sub(r"\S+ min", "M min", line) == (
        "mine  step 3/100  loss -0.0123  entropy 1.23  lr 1e-06  4.1k tok/s"
        "  M min left\n"
    )


def words(config: TrainConfig) -> list[str]:
    """What a run says, without what a step came to."""
    said = io.StringIO()
    train(config, Console(file=said, width=40))
    # Where a machine is slow, what goes on within the step is said too.
    return [line for line in said.getvalue().splitlines() if "  step " not in line]


def test_a_run_says_at_once_what_it_does(tmp_path: Path):
    out = tmp_path / "mine"
    config = TrainConfig(
        out=out, num_steps=1, groups_per_step=1, group_size=2, num_threads=1
    )
    assert words(config) == [
        f"mine  begins: 1 steps of 1 tasks x 2 rollouts, saved in {out}",
        "mine  environment: toy, tasks without end to train on",
        "mine  agents: knowledge (knowledge/scripted), reason (reason/scripted),"
        " verify (verify/scripted); each was asked once",
        "mine  a step: at most 2 rollouts x 160 tokens = 320 tokens to sample",
        "mine  policy: tiny, 583k parameters, float32, cpu; sampler: transformers",
        "mine  a checkpoint: 7.0 MB every 25 steps; the newest 2 and the best are kept",
    ]


@pytest.fixture(scope="module")
def stored_episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of episodes, of which those that could ask are right."""
    out = tmp_path_factory.mktemp("sampled") / "run"
    config = TrainConfig(
        out=out, num_steps=1, groups_per_step=1, group_size=4, num_threads=1
    )
    train(config, Console(quiet=True))
    return out / "episodes" / "step-000001.jsonl"


def test_imitation_says_that_an_objective_is_not_used(stored_episodes: Path, tmp_path):
    config = TrainConfig(
        out=tmp_path / "sft",
        num_steps=1,
        groups_per_step=1,
        num_threads=1,
        objective=ObjectiveConfig(base="dapo"),
        source=EpisodeSource(sft_episodes=str(stored_episodes)),
    )
    said = words(config)
    assert (
        "sft  the objective that is set is not used: sft_episodes are imitated by"
        " cross-entropy" in said
    )
    assert f"sft  episodes: {stored_episodes}" in said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1000 * 4 + 1000 * 8),
        ({"optimizer": OptimizerConfig(name="adamw_8bit")}, 1000 * 4 + 1000 * 2),
        # Rounded, and as training goes on with them.
        (
            {"checkpoints": CheckpointConfig(save_dtype="bfloat16")},
            1000 * 2 + 1000 * 4 + 1000 * 8,
        ),
        # The adapter twice: by itself, and to be resumed from.
        (
            {"compute": ComputeConfig(lora_rank=4)},
            1000 * 4 + 10 * 8 + 2 * 10 * 4,
        ),
        (
            {
                "compute": ComputeConfig(lora_rank=4),
                "checkpoints": CheckpointConfig(save_dtype="bfloat16"),
            },
            1000 * 2 + 10 * 8 + 2 * 10 * 4,
        ),
    ],
)
def test_the_size_of_a_checkpoint_is_known_beforehand(changes: dict, expected: int):
    config = TrainConfig(**changes)
    num_trained = 10 if config.compute.lora_rank else 1000
    size = checkpoint_bytes(config, num_params=1000, num_trained=num_trained)
    assert size == expected


def test_a_checkpoint_is_about_as_large_as_was_said(tmp_path: Path):
    config = TrainConfig(
        out=tmp_path, num_steps=1, groups_per_step=1, group_size=8, num_threads=1
    )
    train(config, Console(quiet=True))
    [checkpoint] = (tmp_path / "checkpoints").iterdir()
    num_params = load_policy(policy_folder(str(tmp_path)))[0].num_parameters()
    said = checkpoint_bytes(config, num_params=num_params, num_trained=num_params)
    weights = [checkpoint / "policy" / "model.safetensors", checkpoint / "optimizer"]
    assert num_bytes(weights[1]) + weights[0].stat().st_size == pytest.approx(
        said, rel=0.02
    )


def test_the_first_plain_line_has_looked_before():
    said = io.StringIO()
    looks = iter(range(1, 1_000_000))
    progress = Progress(Console(file=said), first_s=0.6, every_s=600)
    with progress, progress.part(lambda: f"look {next(looks)}"):
        until(lambda: bool(said.getvalue()))
    assert int(said.getvalue().split()[1]) > 1
