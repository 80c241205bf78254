"""Metrics in the real loggers: offline, and once more when a run is resumed."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "log_metrics.py"


@pytest.mark.integrations
@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_resumed_run_goes_on_in_the_same_place(
    name: str, venv: Callable[[str, Sequence[str]], Path], tmp_path: Path
):
    python = venv("loggers", ("wandb==0.31.0", "trackio==0.43.0", "mlflow==3.17.2"))
    done = subprocess.run(
        [python, SCRIPT, name, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "held.json").read_text()) == {
        "1": 1.0,
        "2": 2.0,
        "3": 3.0,
        "4": 4.0,
    }
