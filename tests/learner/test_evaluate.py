"""pass@k, its intervals, and what is said about change."""

import itertools

import numpy as np
import pytest

from aipo_env import build_scenario
from aipo_learner.evaluation.evaluate import (
    Scores,
    compare,
    dependence_gap,
    evaluate,
    interval,
    pass_at_k,
)
from aipo_learner.samplers.hf.sampler import HFSampler


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (4, 1, 2, 0.5),
        (5, 0, 5, 0.0),
        (5, 5, 1, 1.0),
        (256, 1, 256, 1.0),
        (256, 1, 1, 1 / 256),
        (6, 2, 3, 0.8),
    ],
)
def test_pass_at_k_values(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_the_mean_over_all_subsets():
    outcomes = [1, 0, 0, 1, 0, 0, 0]
    for k in range(1, 8):
        subsets = list(itertools.combinations(outcomes, k))
        assert pass_at_k(7, 2, k) == pytest.approx(
            sum(any(s) for s in subsets) / len(subsets)
        )


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 0), (4, 1, 5), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_refuses_nonsense(n, c, k):
    with pytest.raises(ValueError, match="pass_at_k"):
        pass_at_k(n, c, k)


def scores(*num_correct: int) -> Scores:
    names = tuple(f"t{i}" for i in range(len(num_correct)))
    kinds = ("knowledge", "verify") * (len(num_correct) // 2)
    return Scores(names, kinds, np.array(num_correct), 8)


def test_scores_by_bottleneck():
    row = scores(8, 0, 4, 0).to_dict()
    assert row["pass@1"] == 0.375
    assert row["pass@8"] == 0.5
    assert row["mean@8"] == 0.375
    assert row["never_solved"] == 0.5
    assert row["by_bottleneck"]["knowledge"]["pass@1"] == 0.75
    assert row["by_bottleneck"]["verify"] == {
        "pass@1": 0.0,
        "pass@2": 0.0,
        "pass@4": 0.0,
        "pass@8": 0.0,
        "mean@8": 0.0,
        "never_solved": 1.0,
        "num_tasks": 2,
        "num_samples": 8,
    }


def test_compare_pairs_tasks_and_counts_the_boundary():
    change = compare(scores(0, 0, 4, 1), scores(8, 0, 4, 0))
    assert change["boundary_gain"] == 0.25
    assert change["boundary_loss"] == 0.25
    assert change["difference"]["pass@1"] == pytest.approx((1 + 0 + 0 - 1 / 8) / 4)
    low, high = change["intervals"]["pass@1"]
    assert low < 0.21875 < high


def test_interval_of_equal_values_is_a_point():
    assert interval(np.full(20, 0.25)) == [0.25, 0.25]


def test_dependence_gap():
    assert dependence_gap(scores(0, 0, 8, 0), scores(8, 8, 8, 8)) == 0.75


def test_evaluation_is_on_held_out_tasks_and_repeatable(model, tokenizer):
    scenario = build_scenario("toy", seed=5)
    runs = [
        evaluate(
            HFSampler(model, tokenizer),
            scenario,
            num_tasks=3,
            num_samples=2,
            aided=False,
            seed=5,
        )
        for _ in range(2)
    ]
    (first, episodes), (second, _) = runs
    assert first.task_ids == (
        "toy-5-test-5000015",
        "toy-5-test-5000016",
        "toy-5-test-5000017",
    )
    assert first.bottlenecks == ("verify", "knowledge", "reason")
    assert first.num_correct.tolist() == second.num_correct.tolist()
    assert [episode.aided for episode in episodes] == [False] * 3
    assert all(episode.messages[0].content == "Solve." for episode in episodes)
