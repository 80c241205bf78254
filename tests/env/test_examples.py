"""Every example runs as it is, is short, and says what it is."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("[0-9]*.py"))
SAYS = {
    "01_step_turns.py": "3 of 3 correct, the last after 1 consultation\n",
    "02_tool.py": (
        "['32', 'error: ValueError: times must be of type integer, got \"two\"'] 0.0"
        " completed\n"
    ),
    "03_runner.py": "[1.0, 1.0, 1.0, 1.0]\n",
    "04_sb3.py": "reward 0\n",
    "05_train.py": "alone, on 8 held-out tasks: pass@1 0.000\n",
    "06_skyrl.py": "1.0 True {'consults': 1, 'turns': 2}\n",
    "07_tinker.py": "1.0 True {'consults': 1, 'turns': 2}\n",
}
"""What each prints last."""
NEEDS = {
    "04_sb3.py": "stable_baselines3",
    "05_train.py": "torch",
    # Never beside the tests; tests/integrations/test_trainer_examples.py runs these.
    "06_skyrl.py": "skyrl_gym",
    "07_tinker.py": "tinker_cookbook",
}
MOST_LINES = {"05_train.py": 120}
"""Of a whole training run; any other has 60."""


def test_there_is_an_expectation_for_every_example():
    assert [script.name for script in SCRIPTS] == sorted(SAYS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_an_example_runs(script: Path, tmp_path: Path):
    if script.name in NEEDS and not find_spec(NEEDS[script.name]):
        pytest.skip(f"{NEEDS[script.name]} is not installed")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    run = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith(SAYS[script.name])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_an_example_is_short_and_says_what_it_is(script: Path):
    source = script.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MOST_LINES.get(script.name, 60)
    assert ast.get_docstring(ast.parse(source))
