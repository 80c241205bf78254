"""Which weights were best, and when to stop."""

import pytest

from aipo_learner.run.scores import best_step, is_stalled


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({}, 0),
        ({10: 0.1}, 10),
        ({10: 0.1, 20: 0.5, 30: 0.2}, 20),
        ({10: 0.5, 20: 0.5, 30: 0.5}, 10),
        ({30: 0.5, 20: 0.5, 10: 0.1}, 20),
    ],
)
def test_the_first_of_equals_is_best(scores: dict[int, float], best: int):
    assert best_step(scores) == best


@pytest.mark.parametrize(
    ("patience", "stalled"), [(0, False), (1, True), (2, True), (3, False)]
)
def test_a_run_stalls_after_as_many_evaluations_without_a_better_one(
    patience: int, stalled: bool
):
    scores = {10: 0.2, 20: 0.3, 30: 0.3, 40: 0.1}
    assert is_stalled(scores, patience) is stalled
