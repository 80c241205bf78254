"""Runs that are killed, terminated or stopped at any moment: the resumed run equals an
uninterrupted one bit for bit.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import aipo_learner.rollout.sampled
import aipo_learner.training
from aipo_env import Environment, Interrupted
from aipo_learner.run.interrupt import Abandoned, InterruptFlag
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.evaluation import EvaluationSchedule
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

Run = Callable[..., int]
NUM_HASHES = 2_000_000
"""They take a second."""
MOMENTS = ("rollouts", "update", "save", "commit", "sync", "evaluation")


def config(out: Path) -> dict[str, Any]:
    schedule = EvaluationSchedule(every=3, num_tasks=3, num_samples=1)
    return TrainConfig(
        out=out,
        num_steps=4,
        groups_per_step=2,
        group_size=4,
        checkpoint_every=2,
        num_threads=1,
        lr=1e-3,
        environment=Environment(agents="scripted:wrong=0.3"),
        loggers="",
        evaluation=schedule,
    ).to_dict()


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run `aipo train` in a process of its own, with a signal at a moment; return its
    exit code.
    """
    script = Path(__file__).with_name("run_and_signal.py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:

        def order(
            out: Path,
            moment: str = "",
            nth: int = 0,
            delay_s: float = 0.0,
            sent: str = "SIGKILL",
        ) -> int:
            line = {
                "config": config(out),
                "moment": moment,
                "nth": nth,
                "delay_s": delay_s,
                "signal": sent,
            }
            server.stdin.write(json.dumps(line) + "\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield order
        server.stdin.close()


@pytest.fixture(scope="module")
def uninterrupted(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(out) == 0
    return outcome(out)


def outcome(out: Path) -> dict[str, Any]:
    """Everything that a run leaves but times."""
    rows = read_metrics(out / "metrics.jsonl")
    return {
        "metrics": [
            {k: v for k, v in row.items() if "seconds" not in k} for row in rows
        ],
        "checkpoints": sorted(path.name for path in (out / "checkpoints").iterdir()),
        "best": os.readlink(out / "best"),
        "policies": {
            path.parts[-3]: load_file(path)
            for path in out.glob("checkpoints/*/policy/*.safetensors")
        },
        "journal": (out / "journal.jsonl").read_text(),
        "episodes": sorted(path.name for path in (out / "episodes").iterdir()),
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    policies, others = one["policies"], other["policies"]
    assert {k: v for k, v in one.items() if k != "policies"} == {
        k: v for k, v in other.items() if k != "policies"
    }
    return all(
        torch.equal(policies[step][name], others[step][name])
        for step in policies
        for name in policies[step]
    )


def test_the_run_that_others_are_compared_with(uninterrupted: dict[str, Any]):
    assert [row["step"] for row in uninterrupted["metrics"]] == [1, 2, 3, 4]
    assert ["eval/pass_at_1" in row for row in uninterrupted["metrics"]] == [
        False,
        False,
        True,
        True,
    ]
    assert uninterrupted["checkpoints"] == ["step-000003", "step-000004"]
    assert uninterrupted["journal"] == ""


def test_a_run_killed_in_sampling_update_and_saving(
    run: Run, uninterrupted: dict[str, Any], tmp_path: Path
):
    out = tmp_path / "run"
    assert run(out, "rollouts", nth=1, delay_s=0.02) == -9
    assert run(out, "update", nth=1, delay_s=0.01) == -9
    assert run(out, "save", nth=1, delay_s=0.002) == -9
    assert run(out) == 0
    assert same(outcome(out), uninterrupted)


@pytest.mark.parametrize(
    ("moment", "nth"), [("rollouts", 1), ("update", 0), ("evaluation", 0)]
)
def test_sigterm_saves_at_once_and_asks_to_be_queued_again(
    run: Run, uninterrupted: dict[str, Any], tmp_path: Path, moment: str, nth: int
):
    out = tmp_path / "run"
    assert run(out, moment, nth, delay_s=0.01, sent="SIGTERM") == 75
    steps = [int(path.name[5:]) for path in (out / "checkpoints").iterdir()]
    assert max(steps) == (3 if moment == "evaluation" else 1)
    assert run(out) == 0
    assert same(outcome(out), uninterrupted)


def test_ctrl_c_finishes_the_step(
    run: Run, uninterrupted: dict[str, Any], tmp_path: Path
):
    out = tmp_path / "run"
    assert run(out, "rollouts", nth=0, delay_s=0.01, sent="SIGINT") == 2
    assert len(read_metrics(out / "metrics.jsonl")) == 1
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000001"]
    assert run(out) == 0
    assert same(outcome(out), uninterrupted)


@pytest.fixture
def usual_ctrl_c() -> Iterator[Any]:
    """Have Ctrl-C interrupt, also where the tests run in the background of a shell,
    which has it ignored.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_interrupts_at_once(usual_ctrl_c: Any):
    with InterruptFlag() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        with interrupt.abandonable():
            pass
        assert interrupt.error("stopped").exit_code == 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is usual_ctrl_c


def test_sigterm_ends_what_can_be_abandoned_and_nothing_else():
    with InterruptFlag() as interrupt:
        with pytest.raises(Abandoned), interrupt.abandonable():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Abandoned), interrupt.abandonable():
            pytest.fail("begun after the signal")
        assert interrupt.error("stopped").exit_code == 75
    with InterruptFlag() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.requested


def told_by(*signals: signal.Signals) -> list[str]:
    """What is said of signals that come one after another."""
    told: list[str] = []
    with InterruptFlag(told.append):
        for number in signals:
            num_told = len(told)
            with contextlib.suppress(KeyboardInterrupt, Abandoned):
                signal.raise_signal(number)
            while len(told) == num_told:
                time.sleep(0.001)
    return told


def test_what_a_signal_does_is_told_at_once(usual_ctrl_c: Any):
    again = "finishing this step; again to stop now"
    stopping = "stopping: what is being sampled is given up"
    assert told_by(signal.SIGINT) == [again]
    assert told_by(signal.SIGINT, signal.SIGINT) == [again, stopping]
    assert told_by(signal.SIGTERM) == [stopping]
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_is_told_while_the_main_thread_computes(usual_ctrl_c: Any):
    """Python's handlers run only when it is back, say from a backward pass."""
    events: list[str] = []
    with InterruptFlag(events.append):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        # Seconds in C, without Python's lock.
        hashlib.pbkdf2_hmac("sha256", b"", b"", NUM_HASHES)
        events.append("back")
    assert events == ["finishing this step; again to stop now", "back"]


def test_a_second_ctrl_c_gives_up_what_is_sampled_and_saves(
    usual_ctrl_c: Any,
):
    with InterruptFlag() as interrupt:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Abandoned), interrupt.abandonable():
            signal.raise_signal(signal.SIGINT)
        assert interrupt.error("stopped").exit_code == 2
        # And the third is for whoever was there before.
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def stopped_at(monkeypatch: pytest.MonkeyPatch, out: Path, step: int) -> str:
    """What is said of a run that is asked to stop twice, in the sampling of a step."""
    real = aipo_learner.rollout.sampled.play_wave
    steps = iter(range(1, 1000))

    async def asked(*args: Any) -> Any:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        return await real(*args)

    monkeypatch.setattr(aipo_learner.rollout.sampled, "play_wave", asked)
    with pytest.raises(Interrupted) as caught:
        train(TrainConfig.from_dict(config(out)), Console(quiet=True))
    return str(caught.value)


def test_what_is_said_to_be_saved_is_saved(
    usual_ctrl_c: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert stopped_at(monkeypatch, tmp_path / "first", 1) == (
        "stopped before the first of 4 steps was made; there is nothing to save in"
        f" {tmp_path / 'first'}. The same command begins anew."
    )
    assert list((tmp_path / "first" / "checkpoints").iterdir()) == []
    assert stopped_at(monkeypatch, tmp_path / "second", 2) == (
        f"stopped after step 1 of 4, which is saved in {tmp_path / 'second'}. The same"
        " command goes on from there."
    )
    saved = [path.name for path in (tmp_path / "second" / "checkpoints").iterdir()]
    assert saved == ["step-000001"]


def test_a_run_that_is_asked_to_stop_while_it_is_evaluated_begins_no_step(
    usual_ctrl_c: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    real = aipo_learner.training.held_out_metrics

    def asked(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(aipo_learner.training, "held_out_metrics", asked)
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match="stopped after step 3 of 4, which is saved"):
        train(TrainConfig.from_dict(config(out)), Console(quiet=True))
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert "eval/pass_at_1" in rows[-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_random_moments(
    run: Run, uninterrupted: dict[str, Any], tmp_path: Path, seed: int
):
    """Five kills each, at moments of different kinds in random order; twenty in all."""
    rng = random.Random(seed)
    longest = {
        "rollouts": 0.2,
        "update": 0.1,
        "save": 0.03,
        "commit": 0.02,
        "sync": 0.02,
        "evaluation": 0.1,
    }
    number, codes = 0, list[int]()
    for moment in rng.sample(MOMENTS, 5):
        delay_s = rng.uniform(0, longest[moment])
        while (
            code := run(tmp_path / str(number), moment, rng.randrange(2), delay_s)
        ) == 0:
            # It was over before the moment came; the next run meets it.
            assert same(outcome(tmp_path / str(number)), uninterrupted)
            number += 1
        codes.append(code)
    assert codes == [-9] * 5
    assert run(tmp_path / str(number)) == 0
    assert same(outcome(tmp_path / str(number)), uninterrupted)
