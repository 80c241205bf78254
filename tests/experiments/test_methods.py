"""Every method's file: what it says can be told to a run, and trains."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from aipo_learner import read_metrics, train
from experiments.arms import METHODS, read_method
from experiments.places import facts

NAMES = sorted(path.stem for path in METHODS.glob("*.toml"))
QUICK = ("aipo", "base", "echo")
"""Those that are trained in every run of the tests; all are in a slow one."""


def train_two_steps(name: str, out: Path) -> None:
    config = replace(facts().config, num_steps=2, groups_per_step=3, group_size=4)
    config = config.changed({**read_method(name), "out": out, "loggers": ""})
    train(config, Console(quiet=True))
    steps = [row["step"] for row in read_metrics(out / "metrics.jsonl")]
    assert steps == [1, 2]


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_what_it_is_and_what_differs(name: str):
    text = (METHODS / f"{name}.toml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert read_method(name)


@pytest.mark.parametrize("name", QUICK)
def test_some_methods_train(name: str, tmp_path: Path):
    train_two_steps(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NAMES} - {*QUICK}))
def test_all_methods_train(name: str, tmp_path: Path):
    train_two_steps(name, tmp_path)
