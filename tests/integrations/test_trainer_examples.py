"""The examples for trainers that need a virtual environment of their own."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
SAYS = "1.0 True {'consults': 1, 'turns': 2}\n"
"""What each prints: the reward, whether the episode is over, what was counted."""
AGENT, ENV = 2, 4
"""Authors by number."""


def run(python: Path, script: Path) -> str:
    """Return what a script prints, warnings being errors."""
    done = subprocess.run(
        [python, "-W", "error", script],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tinker(venv: Callable[[str, Sequence[str]], Path]) -> Path:
    """The Python of a virtual environment with Tinker's cookbook."""
    return venv("tinker", ("tinker-cookbook==0.5.8", "torch==2.13.0"))


@pytest.fixture(scope="module")
def skyrl(venv: Callable[[str, Sequence[str]], Path]) -> Path:
    """The Python of a virtual environment with SkyRL-gym."""
    return venv("skyrl", ["skyrl-gym==0.4.0"])


@pytest.mark.integrations
def test_the_example_for_skyrl_gym(skyrl: Path):
    assert run(skyrl, ROOT / "examples" / "06_skyrl.py") == SAYS


@pytest.mark.integrations
def test_an_episode_that_skyrl_leaves_closes_its_tools(skyrl: Path):
    told = json.loads(run(skyrl, SCRIPTS / "skyrl_closes.py").splitlines()[-1])
    assert told["happened"] == ["made", "closed"]
    assert told["limits"] == [131_072, 262_144]


@pytest.mark.integrations
def test_the_example_for_tinker(tinker: Path):
    assert run(tinker, ROOT / "examples" / "07_tinker.py") == SAYS


@pytest.mark.integrations
def test_the_environment_for_tinker_token_by_token(tinker: Path):
    told = json.loads(run(tinker, SCRIPTS / "tinker_tokens.py"))
    assert told["asked"] == [0.0, False]
    assert told["ended"] == [1.0, True, {"consults": 1, "turns": 2}]
    # A prompt that does not fit is worth nothing, and no error.
    assert told["over"] == [0.0, True]
    # Who wrote what of the reply, which the tokens do not say.
    assert told["spans"] == [
        ['<reply from="knowledge">', ENV],
        ["mele=#78#25;", AGENT],
        ["</reply>", ENV],
    ]
