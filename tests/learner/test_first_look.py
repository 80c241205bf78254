"""What is said before torch is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aipo_env import ConfigError, DataError, PolicyError
from aipo_learner.policy.whereabouts import whereabouts
from aipo_learner.settings.evaluation import EvaluationSchedule
from aipo_learner.settings.first_look import look_at_files, look_at_run
from aipo_learner.settings.train import TrainConfig


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": "1 + 1?", "answer": 2}) + "\nnot JSON")
    return path


@pytest.mark.parametrize("name", ["nothere", "./gone", "/gone", "a/b/c"])
def test_a_policy_that_is_nowhere(name: str):
    with pytest.raises(PolicyError, match="no such folder.*OWNER/NAME"):
        whereabouts(name)


def test_a_policy_without_a_name():
    with pytest.raises(PolicyError, match="no such folder"):
        whereabouts("")


def test_the_first_row_alone_is_read(tasks: Path):
    look_at_files([f"file:{tasks}", str(tasks), None, "shipped:math"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",prompt=qestion", "Did you mean 'question'"),
        (",test=2", "test=2 must be a share"),
        (",colum=x", "there is no option 'colum'"),
        (".gone", "no such file"),
    ],
)
def test_a_file_that_does_not_fit(tasks: Path, options: str, message: str):
    for spec in (f"file:{tasks}{options}", f"shipped:math + file:{tasks}{options}"):
        with pytest.raises((ConfigError, DataError), match=message):
            look_at_files([spec])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gsm9k", "there is no 'gsm9k'.* Among the known data sets is 'gsm8k'"),
        ("math_5000,limit=3", "Among the known data sets is 'math_500'"),
        ({"type": "fil", "path": "x"}, "there is no 'fil'.*Did you mean 'file'"),
    ],
)
def test_a_source_that_there_is_not(spec: object, message: str):
    with pytest.raises(ConfigError, match=message):
        look_at_files([spec])


def test_what_a_run_names(tasks: Path):
    spec = f"file:{tasks}"
    look_at_run(TrainConfig(environment=spec))
    with pytest.raises(DataError, match="no such file"):
        look_at_run(TrainConfig(environment=f"{spec}.gone"))
    schedule = EvaluationSchedule(every=1, environment=f"{spec}.gone")
    with pytest.raises(DataError, match="no such file"):
        look_at_run(TrainConfig(environment=spec, evaluation=schedule))


def test_it_needs_no_torch(tasks: Path):
    program = (
        "import sys\n"
        "from aipo_env.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "sys.exit(code)\n"
    )
    for words in (
        ["train", "--policy", "nothere", "--environment", str(tasks)],
        ["train", "--policy", ".", "--environment", f"{tasks}.gone.jsonl"],
        ["eval", "--policy", "nothere", "--tasks", "toy"],
        ["eval", "--policy", ".", "--tasks", "gsm9k"],
        ["report", "nothere"],
    ):
        done = subprocess.run([sys.executable, "-c", program, *words], check=False)
        assert done.returncode == 2
