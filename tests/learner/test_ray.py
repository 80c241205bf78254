"""Rollout workers as Ray actors, in a virtual environment that has Ray."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from aipo_env import ConfigError
from aipo_learner.cli import train

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.mark.slow
@pytest.mark.integrations
def test_a_killed_worker_is_replaced_and_nothing_lost_or_counted_twice(
    venv: Callable[[str, Sequence[str]], Path], tmp_path: Path
):
    requirements = ("torch==2.13.0", "transformers==5.23.0", "ray==2.60.0")
    done = subprocess.run(
        [venv("ray", requirements), SCRIPTS / "ray_train.py", tmp_path],
        env={
            **os.environ,
            "PYTHONPATH": str(SCRIPTS),
            "OMP_NUM_THREADS": "1",
            "RAY_ADDRESS": "local",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert (tmp_path / "ray-notes" / "killed").exists()
    assert result.pop("loss_gap") < 1e-6
    assert result == {
        "steps": [1, 2, 3],
        "num_episodes": 9,
        "same_episodes": True,
        "num_calls": 32,
        "same_calls": True,
        "num_processes": 3,
        "num_answered_here": 0,
        "journal": "",
    }


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(
        ConfigError, match=r'ray=2 needs Ray: pip install "aipo-rl\[ray\]"'
    ):
        train(["--ray", "2", "--out", str(tmp_path)])


def test_a_negative_number_of_workers_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="ray=-1 must be at least 0"):
        train(["--ray", "-1", "--out", str(tmp_path)])
