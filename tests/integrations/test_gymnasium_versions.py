"""The environments pass the checkers of the oldest gymnasium we support, and of the one
that RLlib pins.
"""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.integrations
@pytest.mark.parametrize("version", ["1.1.1", "1.2.2"])
def test_check_env(version: str, venv: Callable[[str, Sequence[str]], Path]):
    libraries = (f"gymnasium=={version}", "jinja2>=3.1", "pytest>=9", "tiktoken>=0.12")
    python = venv(f"gymnasium-{version}", libraries)
    tests = ROOT / "tests" / "env" / "test_check_env.py"
    command = [python, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", tests]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
