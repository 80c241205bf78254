"""The wheel, installed outside of the clone: what ships is whole."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return a function that runs a program of an environment that has the wheel.

    The packages that it depends on are those that run the tests, this project's own
    editable installation left out.
    """
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        pytest.skip(f"pip cannot build here: {built.stderr.strip().splitlines()[-1]}")
    [wheel] = folder.glob("aipo_rl-*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    install = [*pip, "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True)
    [packages] = folder.glob("venv/lib/python*/site-packages")
    # A line of such a file is a path, whose own .pth files, those of editable
    # installations, are not read.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    settings.pop("PYTHONPATH", None)

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [folder / "venv" / "bin" / program, *arguments],
            cwd=folder,
            env=settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_what_the_wheel_installs_runs_outside_of_the_clone(run: Callable[..., str]):
    place = run("python", "-c", "import aipo_env; print(aipo_env.__file__)")
    assert "/venv/lib/" in place
    # By that name verifiers looks for our environments.
    find = "from importlib.util import find_spec; print(find_spec('aipo_verifiers'))"
    assert "/venv/lib/" in run("python", "-c", find)
    report = run("aipo", "doctor")
    assert "aipo train      ready\n" in report
    assert "aipo view       ready\n" in report
    for source in ("shipped:math", "shipped:code", "shipped:science"):
        assert run("aipo", "tasks", source).startswith("train")


@pytest.mark.slow
def test_the_wheel_trains_and_shows_what_it_did(run: Callable[..., str]):
    few = ("--groups-per-step", "2", "--group-size", "2", "--num-steps", "1")
    said = run("aipo", "train", "--recipe", "toy", *few, "--out", "runs/mine")
    assert "step 1/1" in said
    few = ("--num-tasks", "2", "--samples", "2")
    assert "alone" in run("aipo", "eval", "--policy", "runs/mine", *few)
    assert "report.html" in run("aipo", "report", "runs/mine")
    assert ".html" in run("aipo", "view", "runs/mine/episodes/step-000001.jsonl")


DEMO = """
from dataclasses import replace
from pathlib import Path
from rich.console import Console
from aipo_learner.demo import Measure, run_demo
from aipo_learner.settings.recipes import toy, toy_base
few = dict(num_steps=1, groups_per_step=2, group_size=2)
if __name__ == "__main__":
    print(
        run_demo(
            0,
            Path("demo"),
            Console(quiet=True),
            {"aipo": replace(toy(), **few), "base": replace(toy_base(), **few)},
            Measure(tasks=2, samples=2, aided_samples=2),
        ).stat().st_size
    )
"""


@pytest.mark.slow
def test_the_wheel_runs_a_short_demo(run: Callable[..., str], tmp_path: Path):
    script = tmp_path / "demo.py"
    script.write_text(DEMO)
    assert int(run("python", str(script)).split()[-1]) > 10_000
