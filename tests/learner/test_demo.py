"""The demonstration from end to end, small."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from aipo_env import DataError
from aipo_learner.demo import Measure, run_demo
from aipo_learner.settings.recipes import toy, toy_base, toy_masked


@pytest.mark.parametrize(
    "name", ["summary.json", "report.html", "before", "before/episodes", "aipo"]
)
def test_the_demo_writes_through_no_link(tmp_path: Path, name: str):
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.mkdir()
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to(victim)
    with pytest.raises(DataError, match=f"{name}: a link, which is not followed"):
        run_demo(3, out, Console(quiet=True), {"aipo": toy()})
    assert list(victim.iterdir()) == []


def test_three_arms_are_trained_measured_and_reported(tmp_path: Path, capsys):
    small = {"num_steps": 2, "groups_per_step": 2, "group_size": 4}
    arms = {"aipo": toy(), "masked": toy_masked(), "base": toy_base()}
    arms = {name: replace(config, **small) for name, config in arms.items()}
    page = run_demo(
        3, tmp_path, Console(), arms, Measure(tasks=3, samples=4, aided_samples=2)
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["seed"] == 3
    assert list(summary["arms"]) == ["aipo", "masked", "base"]
    for arm in summary["arms"].values():
        assert arm["rollouts"] == 16
        assert arm["unaided"]["before"] == summary["arms"]["aipo"]["unaided"]["before"]
        assert set(arm["unaided"]["after"]) >= {
            "pass@1",
            "pass@4",
            "intervals",
            "by_bottleneck",
        }
        assert arm["aided"]["after"]["num_samples"] == 2
    assert set(summary["against"]) == {"masked", "base"}
    assert page == tmp_path / "report.html"
    assert "<html" in page.read_text(encoding="utf-8")
    assert "alone, on held-out tasks" in capsys.readouterr().out
