"""Virtual environments for libraries whose pins conflict with ours, and the scripts that run in them."""

import json
import os
import subprocess
import sys
import tomllib
import venv as virtual_environment
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
FOLDER = Path(os.environ.get("AIPO_TEST_VENVS") or Path(sys.prefix, "test-venvs"))


@pytest.fixture(scope="session")
def venv() -> Callable[[str, Sequence[str]], Path]:
    """Return a function that builds a virtual environment with this project in it and returns its Python.

    It is kept in `AIPO_TEST_VENVS`, or beside the packages that run the tests, and built again when what it
    has to hold changes. The test is skipped where pip cannot install the requirements.
    """

    def build(name: str, requirements: Sequence[str]) -> Path:
        core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        wanted = json.dumps([sys.version, *requirements, *core])
        python, stamp = FOLDER / name / "bin" / "python", FOLDER / name / "requirements.json"
        if stamp.is_file() and stamp.read_text() == wanted:
            return python
        virtual_environment.create(FOLDER / name, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        done = subprocess.run([*pip, *requirements], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1]
            pytest.skip(f"pip cannot install {' '.join(requirements)}: {reason}")
        subprocess.run([*pip, "--editable", ROOT], check=True)
        stamp.write_text(wanted)
        return python

    return build


@pytest.fixture
def run_script(venv: Callable[[str, Sequence[str]], Path], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that runs `scripts/step_NAME.py`, warnings being errors, and returns what it prints.

    Without requirements it runs beside the tests.
    """
    # Small networks on one thread, and logs of Stable-Baselines3 where pytest clears up.
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
