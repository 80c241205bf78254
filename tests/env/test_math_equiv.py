"""Ground truth for mathematics."""

from fractions import Fraction

import pytest

from aipo_env import MathVerifier, Task, run_sync
from aipo_env.verifiers.math_equiv import last_boxed, normalise, number


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        ("so \\boxed{8534}.", "8534"),
        ("\\boxed{1} or \\boxed{ 2 }", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{{a}{b{c}}} rest}", "{a}{b{c}}"),
        ("\\boxed{\\boxed{7}}", "7"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{(0, 1\\}}", "(0, 1\\}"),
        ("\\boxed{7} and then \\boxed{8", "7"),
        ("\\boxed{7", None),
        ("\\boxed 7}", None),
        ("} \\boxed{}", ""),
        ("", None),
    ],
)
def test_last_boxed(text: str, boxed: str | None):
    assert last_boxed(text) == boxed


def test_only_the_end_of_a_long_text_is_read():
    assert last_boxed("\\boxed{1}" + "x" * 1_000_000) is None
    assert last_boxed("x" * 1_000_000 + "\\boxed{1}") == "1"
    assert last_boxed("\\boxed{" * 150_000) is None
    assert last_boxed("{" * 500_000 + "}" * 500_000) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8534", Fraction(8534)),
        ("-0.50", Fraction(-1, 2)),
        (".25", Fraction(1, 4)),
        ("+7", Fraction(7)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("3/4", Fraction(3, 4)),
        ("\\frac{-3}{4}", Fraction(-3, 4)),
        ("-\\dfrac{3}{-4}", Fraction(3, 4)),
        pytest.param("1" * 300, Fraction(int("1" * 300)), id="300 digits"),
        ("1/0", None),
        ("", None),
        (".", None),
        ("-", None),
        ("1,23", None),
        ("1e5", None),
        ("x", None),
        pytest.param("1" * 301, None, id="301 digits"),
        pytest.param("1" + ",000" * 2000, None, id="2000 commas"),
        pytest.param("9" * 10_000, None, id="10000 digits"),
    ],
)
def test_number(text: str, value: Fraction | None):
    assert number(text) == value


def test_normalise_drops_what_never_matters():
    assert normalise(" $\\left( 1,\\, 2 \\right)$. ") == "(1,2)"
    assert normalise("\\leftarrow") == "\\leftarrow"


@pytest.mark.parametrize(
    ("answer", "text", "status", "stage"),
    [
        ("8534", "\\boxed{8534}", "correct", "value"),
        ("8534", "\\boxed{8,534.0}", "correct", "value"),
        ("0.5", "\\boxed{\\frac{1}{2}}", "correct", "value"),
        ("0042", "\\boxed{42}", "correct", "value"),
        ("8534", "\\boxed{8535}", "wrong", "value"),
        ("x^2 + 1", "\\boxed{x^2+1}", "correct", "text"),
        ("8534", "\\boxed{8534 apples}", "wrong", "text"),
        ("8534", "8534", "no_answer", ""),
        ("8534", "\\boxed{ }", "no_answer", ""),
        pytest.param("8534", "\\boxed{1" + ",000" * 2000 + "}", "wrong", "text", id="commas"),
        pytest.param("8534", "\\boxed{" + "9" * 9_000 + "}", "wrong", "text", id="digits"),
    ],
)
def test_verdicts(answer: str, text: str, status: str, stage: str):
    verdict = run_sync(MathVerifier().verify(Task(id="t", prompt="p", answer=answer), text))
    assert (verdict.status, verdict.stage) == (status, stage)
    assert verdict.reward == (1.0 if status == "correct" else 0.0)
    assert verdict.correct == (status == "correct")
    assert len(verdict.extracted) <= 200
