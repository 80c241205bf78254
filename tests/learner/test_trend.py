"""Whether a run learned, in words."""

from typing import Any

import pytest

from aipo_learner.reporting.trend import FELL, ROSE, UNCLEAR, Trend, conclusion, trend

NOISE = (0.02, -0.03, 0.01, 0.0, -0.02, 0.03)


def rows(
    start: float, end: float, number: int = 30, **more: Any
) -> list[dict[str, Any]]:
    """Return rows whose success alone goes from one value to another, with scatter."""
    return [
        {
            "step": step + 1,
            "rows": 8,
            "success/unaided": start
            + (end - start) * step / (number - 1)
            + NOISE[step % len(NOISE)],
            **more,
        }
        for step in range(number)
    ]


def of(rows: list[dict[str, Any]], **kind: bool) -> tuple[str, list[str]]:
    found = conclusion(rows, **{"is_stored": False, "is_imitation": False, **kind})
    return found.word, found.sentences


def with_scores(rows: list[dict[str, Any]], *scores: float) -> list[dict[str, Any]]:
    """Return rows with evaluations before training and after every tenth step."""
    before = {"step": 0, "eval/pass_at_1": scores[0]}
    for number, score in enumerate(scores[1:], 1):
        rows[10 * number - 1]["eval/pass_at_1"] = score
    return [before, *rows]


def test_a_metric_rose_if_its_means_differ_by_more_than_scatter() -> None:
    rising = [{"step": step, "x": step / 10} for step in range(1, 11)]
    assert trend(rising, "x") == Trend(
        first=pytest.approx(0.2), last=pytest.approx(0.9), num_steps=3, change=ROSE
    )
    falling = [{"step": step, "x": -step} for step in range(1, 31)]
    found = trend(falling, "x")
    assert found is not None
    assert (found.first, found.last, found.num_steps, found.change) == (
        -3.5,
        -27.5,
        6,
        FELL,
    )
    scatter = [{"step": step, "x": step % 5} for step in range(1, 41)]
    found = trend(scatter, "x")
    assert found is not None
    assert found.change == UNCLEAR


def test_five_steps_say_nothing() -> None:
    assert trend([{"step": step, "x": step} for step in range(1, 6)], "x") is None
    assert of(rows(0.0, 1.0, number=5)) == (
        "Too early to say",
        ["5 steps are too few to tell learning from scatter."],
    )
    assert of([]) == ("Not yet", ["No step was made."])
    assert of([{"step": 0, "eval/pass_at_1": 0.5}]) == (
        "Not yet",
        ["No step was made."],
    )


def test_success_that_rises_is_said_with_its_numbers() -> None:
    assert of(rows(0.1, 0.9)) == (
        "Yes",
        [
            "In training, success alone rose from 17.1% to 83.3% (means of the first"
            " and the last 6 steps)."
        ],
    )


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(0.9, 0.1), "No, it got worse"),
        (rows(0.5, 0.5), "Not visibly"),
        (rows(0.5, 0.51), "Not visibly"),
        (with_scores(rows(0.1, 0.9), 0.2, 0.3, 0.4), "Yes"),
        (with_scores(rows(0.1, 0.9), 0.2, 0.3, 0.1), "On its training tasks only"),
        (with_scores(rows(0.5, 0.5), 0.2, 0.3, 0.4), "Perhaps"),
    ],
)
def test_the_word_fits_what_was_measured(made: list[dict[str, Any]], word: str) -> None:
    assert of(made)[0] == word


def test_the_scheduled_evaluation_is_told_with_its_steps() -> None:
    made = with_scores(rows(0.1, 0.9), 0.2, 0.7, 0.4)
    assert of(made)[1][0] == (
        "On held-out tasks, pass@1 alone was 20.0% before training and 40.0% after step"
        " 20; the highest, 70.0%, after step 10."
    )
    once = rows(0.1, 0.9)
    once[-1]["eval/pass_at_1"] = 0.4
    assert of(once)[1][0] == (
        "On held-out tasks, pass@1 alone was 40.0% after step 30, the only evaluation."
    )


def test_a_run_without_a_gradient_did_not_learn() -> None:
    made = rows(0.0, 0.0)
    for row in made:
        row["rows"] = 0
    assert of(made) == (
        "No",
        ["No step had a gradient, so the policy is what it was."],
    )


def test_success_with_agents_is_not_taken_for_success_alone() -> None:
    aided = [
        {"step": row["step"], "rows": 8, "success/aided": row["success/unaided"]}
        for row in rows(0.1, 0.9)
    ]
    assert of(aided)[0] == "With agents, yes"
    for row in aided:
        row["success/unaided"] = 0.0
    word, sentences = of(aided)
    assert word == "With agents only"
    assert sentences[0] == (
        "In training, success alone stayed at 0.0% (means of the first and the last 6"
        " steps)."
    )


def test_success_of_stored_episodes_is_not_the_policys() -> None:
    made = rows(0.1, 0.9, loss=1.0)
    word, sentences = of(made, is_stored=True)
    assert word == "Not measured"
    assert sentences == [
        "It learned from stored episodes: their success and reward are not its own."
    ]
    for row in made:
        row["loss"] = 2.0 - row["step"] / 20
    word, sentences = of(made, is_stored=True, is_imitation=True)
    assert word == "It imitates them better"
    assert sentences[-1] == (
        "In training, the loss fell from 1.82 to 0.625 (means of the first and the last"
        " 6 steps)."
    )


@pytest.mark.parametrize("value", [None, "high", True, 1e300, float("nan"), [], {}])
def test_what_is_no_number_is_left_out(value: object) -> None:
    made: list[dict[str, Any]] = [
        {"step": step, "rows": value, "success/unaided": value, "reward": value}
        for step in range(1, 20)
    ]
    assert of(made)[0] == "Too early to say"
