"""The scripts that run other libraries, each in a virtual environment of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture
def run_script(
    venv: Callable[[str, Sequence[str]], Path], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Return a function that runs `scripts/step_NAME.py`, warnings being errors, and
    returns what it prints.

    Without requirements it runs beside the tests.
    """
    # Small networks on one thread, and logs of Stable-Baselines3 where pytest clears
    # up.
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "SB3_LOGDIR": str(tmp_path)}

    def run(name: str, *requirements: str) -> dict[str, Any]:
        python = venv(name, requirements) if requirements else Path(sys.executable)
        done = subprocess.run(
            [python, "-W", "error", SCRIPTS / f"step_{name}.py"],
            env=settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
