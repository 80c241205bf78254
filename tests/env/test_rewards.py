"""Reward functions: what each return value comes to, and what a failing one does not
bring down.
"""

import asyncio
import copy
import functools
import importlib
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo_env import (
    ConfigError,
    EpisodeView,
    Message,
    RewardVerifier,
    SandboxUnavailable,
    Task,
    Verdict,
    parse_rewards,
    run_sync,
)

ROOT = Path(__file__).resolve().parents[2]
TASK = Task(id="t", prompt="What is 6 times 7?", answer="42")
VIEW = EpisodeView(task=TASK, answer="42")


def exact(task: Task, text: str) -> bool:
    return text == task.answer


def brief(task: Task, text: str) -> float:
    return 1 / (1 + len(text))


def judge(functions: Any, text: str = "42", **options: Any) -> Verdict:
    view = options.pop("episode", None)
    return run_sync(RewardVerifier(functions, **options).verify(TASK, text, view))


def returning(value: Any) -> Callable[..., Any]:
    def rule(task: Task, text: str) -> Any:
        return value

    return rule


@pytest.mark.parametrize(
    ("value", "parts", "correct"),
    [
        (True, {"rule": 1.0}, True),
        (False, {"rule": 0.0}, False),
        (1, {"rule": 1.0}, True),
        (0.3, {"rule": 0.3}, False),
        (-2.5, {"rule": -2.5}, False),
        (7, {"rule": 7.0}, True),
        (np.float32(0.5), {"rule": 0.5}, False),
        (np.int64(2), {"rule": 2.0}, True),
        (np.bool_(True), {"rule": 1.0}, True),
        (np.array(0.25), {"rule": 0.25}, False),
        ({"a": 0.75, "b": 0.25}, {"a": 0.75, "b": 0.25}, True),
        ({"a": True, "b": np.float64(-0.5)}, {"a": 1.0, "b": -0.5}, False),
        ({"a": 0.1, "correct": True}, {"a": 0.1}, True),
        ({"a": 5.0, "correct": np.bool_(False)}, {"a": 5.0}, False),
        ({"correct": 0.5}, {"correct": 0.5}, False),
        (Verdict(correct=True, reward=0.5, status="correct"), {"rule": 0.5}, True),
        (
            Verdict(correct=False, reward=2.0, status="wrong", parts={"a": 3, "b": -1}),
            {"a": 3.0, "b": -1.0},
            False,
        ),
    ],
    ids=str,
)
def test_what_a_function_returns(value: Any, parts: dict[str, float], correct: bool):
    verdict = judge(returning(value))
    assert verdict.parts == parts
    assert verdict.reward == sum(parts.values())
    assert verdict.correct is correct
    assert verdict.status == ("correct" if correct else "wrong")


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = object.__hash__


class Unreliable(dict):
    def items(self) -> Any:
        raise KeyError("no items")


class Shifty(str):
    """Text that says something else each time."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return random.random() < 0.5

    def __hash__(self) -> int:
        return random.getrandbits(32)

    def isprintable(self) -> bool:
        return True


class Endless(dict):
    def items(self) -> Any:
        number = 0
        while True:
            number += 1
            yield str(number), 0.0


class Odd:
    shape = ()

    def item(self) -> Any:
        raise OSError("no item")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (float("nan"), "returned nan;"),
        (float("-inf"), "returned -inf;"),
        (np.float32("nan"), "nan"),
        ("1.0", "returned '1.0';"),
        (None, "returned None;"),
        ([1.0], "returned [1.0];"),
        (1j, "returned 1j;"),
        (np.array([1.0]), "returned array([1.]);"),
        (Decimal("0.5"), "returned Decimal('0.5');"),
        (10**400, "returned 1000000"),
        (10**5000, "returned <int>;"),
        ({}, "no function gave a number;"),
        ({"correct": True}, "no function gave a number;"),
        ({"a": None}, "the part 'a' of the reward is None;"),
        ({"a": float("nan")}, "the part 'a' of the reward is nan;"),
        ({"a": 10**400}, "the part 'a' of the reward is 1000"),
        ({"a": {"b": 1.0}}, "the part 'a' of the reward is {'b': 1.0};"),
        ({1: 1.0}, "a part of the reward is named 1;"),
        ({"": 1.0}, "a part of the reward is named '';"),
        ({"\ud800": 1.0}, "a part of the reward is named '\\ud800';"),
        ({Unreadable(): 1.0}, "a part of the reward is named <Unreadable>;"),
        ({Shifty("\x1b"): 1.0}, "a part of the reward is named '\\x1b';"),
        ({str(number): 0.0 for number in range(70)}, "at most 64 parts"),
        (Unreliable(a=1.0), "KeyError: 'no items'"),
        (Endless(), "at most 64 parts"),
        (Unreadable(), "returned <Unreadable>;"),
        (Odd(), "returned <"),
        ({"a": Odd()}, "OSError: no item"),
        ({"a": 1e308, "b": 1e308}, "the rewards of rule: "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_reward_is_a_failure_and_never_0(value: Any, fault: str):
    verdict = judge(returning(value))
    assert (verdict.correct, verdict.reward, verdict.status) == (None, None, "error")
    assert fault in verdict.reason
    assert verdict.parts == {}
    assert "rule" in verdict.reason
    assert len(verdict.reason) < 600


def test_a_failure_says_which_function_what_it_returned_and_what_is_valid():
    assert (
        judge(returning("1.0")).reason
        == "reward function 'rule' returned '1.0'; return a finite number, True or"
        " False, a dict of finite numbers by name ('correct': True or False may be"
        " among them), or a Verdict."
    )


def raising(error: BaseException) -> Callable[..., Any]:
    def rule(task: Task, text: str) -> Any:
        raise error

    return rule


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


class Foul(BaseException):
    """No Exception."""


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ValueError("boom"), "raised ValueError: boom;"),
        (SystemExit(3), "raised SystemExit: 3;"),
        (asyncio.CancelledError(), "raised CancelledError: ;"),
        (TimeoutError("of its own"), "raised TimeoutError: of its own;"),
        (KeyboardInterrupt(), "raised RuntimeError: KeyboardInterrupt();"),
        (StopIteration(), "raised RuntimeError: StopIteration();"),
        (Foul("x"), "raised RuntimeError: Foul('x');"),
        (Mute(), "raised Mute: (its message cannot be read);"),
        (ValueError("x" * 10**6), "raised ValueError: xxx"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_function_raises_is_a_failure(error: BaseException, fault: str):
    verdict = judge(raising(error))
    assert (verdict.correct, verdict.reward, verdict.status) == (None, None, "error")
    assert fault in verdict.reason
    assert len(verdict.reason) < 1500


@pytest.mark.parametrize(
    "error", [ConfigError("no key"), ImportError("no torch"), SandboxUnavailable("no")]
)
def test_what_no_answer_can_mend_is_raised_through(error: Exception):
    with pytest.raises(type(error), match=str(error)):
        judge(raising(error))
    with pytest.raises(type(error), match=str(error)):
        judge([raising(error), exact])


def test_a_function_that_imports_what_is_missing_ends_the_run():
    def rule(task: Task, text: str) -> Any:
        return importlib.import_module("no_such_module_here")

    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        judge(rule)


@pytest.mark.parametrize(
    "program",
    [
        "import no_such_module_here",
        "from json import no_such_name",
        "__import__('no_such_module_here')",
        "import importlib; importlib.import_module('no_such_module_here')",
        "from aipo_env import ConfigError\nraise ConfigError('gotcha')",
        "from aipo_env import PoolLimits\nPoolLimits(retries=-1)",
        "class A:\n  def __init__(self): import no_such_module_here\nA()",
    ],
)
@pytest.mark.parametrize("space", [True, False], ids=["own globals", "ours"])
def test_code_of_the_models_cannot_end_the_run(program: str, space: bool):
    def rule(task: Task, text: str) -> float:
        exec(text, {} if space else globals())
        return 1.0

    verdict = judge(rule, program)
    assert (verdict.reward, verdict.status) == (None, "error")
    assert "raised " in verdict.reason


def test_an_error_in_a_dataclass_is_the_functions_own():
    def rule(task: Task, text: str) -> float:
        from aipo_env import PoolLimits

        PoolLimits(retries=-1)
        return 1.0

    with pytest.raises(ConfigError, match="retries"):
        judge(rule)


def test_weights_scale_the_parts_and_the_reward_is_their_sum():
    verdict = judge({exact: 1.0, brief: -0.3})
    assert verdict.parts == {"exact": 1.0, "brief": pytest.approx(-0.1)}
    assert verdict.reward == pytest.approx(0.9)
    assert verdict.correct is False  # the threshold is 1
    assert judge({exact: 1.0, brief: -0.3}, threshold=0.5).correct is True
    assert judge({exact: 0}).parts == {"exact": 0.0}


def test_a_sum_that_misses_the_threshold_by_rounding_reaches_it():
    def yes(task: Task, text: str) -> bool:
        return True

    def named(name: str) -> Any:
        rule = functools.wraps(yes)(lambda task, text: True)
        rule.__name__ = name
        return rule

    weights = {named(f"f{i}"): weight for i, weight in enumerate([0.7, 0.2, 0.1])}
    assert judge(weights).correct is True
    assert judge({yes: 1 - 1e-6}).correct is False


def test_parts_of_several_functions_bear_their_names():
    def style(task: Task, text: str) -> dict[str, float]:
        return {"short": 1.0, "polite": 0.5}

    def checked(task: Task, text: str) -> Verdict:
        return Verdict(correct=True, reward=2.0, status="correct", parts={"x": 2.0})

    def plain(task: Task, text: str) -> Verdict:
        return Verdict(correct=True, reward=3.0, status="correct")

    verdict = judge({exact: 1.0, style: 0.5, checked: 1.0, plain: 1.0})
    assert verdict.parts == {
        "exact": 1.0,
        "style/short": 0.5,
        "style/polite": 0.25,
        "checked/x": 2.0,
        "plain": 3.0,
    }
    assert verdict.reward == 6.75


def says(name: str, correct: Any, reward: float = 0.0) -> Any:
    def rule(task: Task, text: str) -> dict[str, Any]:
        return {"r": reward, "correct": correct}

    rule.__name__ = name
    return rule


def test_all_who_say_it_must_agree_that_an_answer_is_correct():
    assert judge([says("a", True), says("b", True)]).correct is True
    assert judge([says("a", True, 9.0), says("b", False, 9.0)]).correct is False
    assert judge([says("a", True), exact], "41").correct is True
    assert judge([says("a", False), exact], "42").correct is False


def test_what_a_verdict_shows_is_kept():
    def none(task: Task, text: str) -> Verdict:
        return Verdict(
            correct=False,
            reward=0.0,
            status="no_answer",
            extracted="x",
            reason="y",
            stage="z",
        )

    for functions in (none, {exact: 1.0, none: 0.5}):
        verdict = judge(functions)
        assert (verdict.status, verdict.correct) == ("no_answer", False)
        assert (verdict.extracted, verdict.reason, verdict.stage) == ("x", "y", "z")


def test_a_verdict_without_a_reward_is_a_failure_of_them_all():
    def fails(task: Task, text: str) -> Verdict:
        return Verdict(correct=None, reward=None, status="infra_error", reason="full")

    for functions in (fails, [exact, fails]):
        verdict = judge(functions)
        assert (verdict.reward, verdict.status) == (None, "infra_error")
        assert verdict.reason == "reward function 'fails' could not decide: full"


async def later(task: Task, text: str) -> float:
    await asyncio.sleep(0)
    return 0.5


class Object:
    """Called by a method."""

    def __init__(self, way: str = "") -> None:
        self.way = way

    def __call__(self, task: Task, text: str) -> float:
        return 0.5

    async def method(self, task: Task, text: str, episode: EpisodeView) -> float:
        return float(episode is VIEW)


class AsyncObject:
    async def __call__(self, task: Task, text: str) -> float:
        return 0.5


def test_functions_sync_and_async_of_every_make():
    assert judge(later).parts == {"later": 0.5}
    assert judge(functools.partial(later)).parts == {"later": 0.5}
    assert judge(Object()).parts == {"Object": 0.5}
    assert judge(AsyncObject()).parts == {"AsyncObject": 0.5}
    assert judge(Object().method, episode=VIEW).parts == {"method": 1.0}
    assert judge(lambda task, text: later(task, text)).parts == {"<lambda>": 0.5}
    assert judge([exact, later]).parts == {"exact": 1.0, "later": 0.5}


def by_place(task: Task, text: str, episode: EpisodeView) -> bool:
    return episode is VIEW


def by_name(task: Task, text: str, *, episode: EpisodeView | None) -> bool:
    return episode is VIEW


def by_place_alone(task: Task, text: str, episode: Any, /) -> bool:
    return episode is VIEW


def after_another(task: Task, text: str, more: int = 0, episode: Any = None) -> bool:
    return episode is VIEW and more == 0


async def async_by_name(task: Task, text: str, episode: EpisodeView) -> bool:
    return episode is VIEW


@functools.wraps(by_name)
def passing_on(*given: Any, **named: Any) -> Any:
    return by_name(*given, **named)


@functools.wraps(by_place)
def passing_places_on(*given: Any) -> Any:
    return by_place(*given)


@functools.wraps(by_place)
def filling_in(task: Task, text: str) -> Any:
    return by_place(task, text, VIEW)


@pytest.mark.parametrize(
    "function",
    [
        by_place,
        by_name,
        by_place_alone,
        after_another,
        async_by_name,
        passing_on,
        passing_places_on,
        filling_in,
        functools.partial(by_name),
    ],
    ids=lambda function: getattr(function, "__qualname__", "partial"),
)
def test_a_parameter_named_episode_is_given_the_view(function: Any):
    assert judge(function, episode=VIEW).reward == 1.0


def test_without_an_episode_there_is_no_view():
    def rule(task: Task, text: str, episode: EpisodeView | None) -> bool:
        return episode is None

    assert judge(rule).reward == 1.0


def test_a_function_reads_the_episode():
    def rule(task: Task, text: str, episode: EpisodeView) -> dict[str, float]:
        return {
            "turns": len(episode.messages),
            "early": episode.reward_parts["turn"],
            "shop": episode.tools["Shop"],
        }

    view = EpisodeView(
        task=TASK,
        answer="42",
        messages=(Message("user", ()),),
        tools={"Shop": 3},
        reward_parts={"turn": 0.5},
    )
    assert judge(rule, episode=view).parts == {"turns": 1.0, "early": 0.5, "shop": 3.0}


def test_silence_beyond_the_deadline_is_a_failure():
    async def never(task: Task, text: str) -> float:
        await asyncio.Event().wait()
        return 1.0

    def slow(task: Task, text: str) -> float:
        time.sleep(5)
        return 1.0

    for function in (never, slow):
        verdict = judge(function, deadline_s=0.2)
        assert (verdict.reward, verdict.status) == (None, "error")
        fault = f"reward function '{function.__name__}' said nothing within 0.2 s"
        assert fault in verdict.reason


def test_a_function_that_hangs_blocks_neither_the_loop_nor_40_others():
    def rule(task: Task, text: str) -> float:
        if text == "hang":
            time.sleep(3600)
        return 0.5

    async def many() -> tuple[list[Verdict], list[Verdict], int]:
        verifier, ticks = RewardVerifier(rule, deadline_s=0.5), 0
        hung = [asyncio.ensure_future(verifier.verify(TASK, "hang")) for _ in range(32)]
        others = [asyncio.ensure_future(verifier.verify(TASK, "42")) for _ in range(40)]
        while not all(other.done() for other in (*hung, *others)):
            await asyncio.sleep(0.01)
            ticks += 1
        return [one.result() for one in hung], [one.result() for one in others], ticks

    hung, others, ticks = run_sync(many())
    assert {verdict.reward for verdict in hung} == {None}
    assert [verdict.reward for verdict in others] == [0.5] * 40
    assert ticks > 5


def test_a_cancelled_verdict_is_cancelled():
    async def cancelled() -> bool:
        verifier = RewardVerifier(lambda task, text: time.sleep(3))
        work = asyncio.ensure_future(verifier.verify(TASK, "42"))
        await asyncio.sleep(0.05)
        work.cancel()
        await asyncio.wait({work})
        return work.cancelled()

    assert run_sync(cancelled())


HANG = """
import time
from aipo_env import RewardVerifier, Task, run_sync

def rule(task, text):
    time.sleep(3600)

verifier = RewardVerifier(rule, deadline_s=0.2)
print(run_sync(verifier.verify(Task(id="t", prompt="?", answer="x"), "x")).status)
"""


def test_a_function_that_hangs_does_not_keep_the_process_alive():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HANG],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "error\n", "")


def test_one_verifier_serves_several_event_loops():
    verifier = RewardVerifier(exact)

    async def many() -> list[Verdict]:
        return await asyncio.gather(*(verifier.verify(TASK, "42") for _ in range(50)))

    for _ in range(2):
        assert {verdict.reward for verdict in asyncio.run(many())} == {1.0}
    assert {verdict.reward for verdict in run_sync(many())} == {1.0}
    for again in (copy.deepcopy(verifier), pickle.loads(pickle.dumps(verifier))):
        assert run_sync(again.verify(TASK, "42")) == run_sync(
            verifier.verify(TASK, "42")
        )


def test_functions_by_name():
    here = f"{__name__}:exact"
    assert judge(here).parts == {"exact": 1.0}
    assert judge(f"{here}=0.5").parts == {"exact": 0.5}
    assert judge([here, f"{__name__}:brief"]).parts["exact"] == 1.0
    assert judge({here: 0.5, brief: 3}).parts == {"exact": 0.5, "brief": 1.0}


def test_a_function_within_a_class_is_named_by_a_path():
    assert judge(f"{__name__}:Keyed.score").parts == {"score": 0.25}


class Keyed:
    def rule(self, text: str) -> float:
        return 1.0

    @staticmethod
    def score(task: Task, text: str) -> float:
        return 0.25


def alone(text: str) -> float:
    return 1.0


def three(task: Task, text: str, reference: str) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("functions", "options", "message"),
    [
        (
            alone,
            {},
            (
                r"reward function 'alone' has the parameters \(text: str\).*a reward"
                r" function is fn\(task, text\) or"
            ),
        ),
        (three, {}, "reward function 'three' has the parameters .*reference"),
        (lambda *, task, text: 1.0, {}, "has the parameters"),
        (Keyed().rule, {}, r"reward function 'rule' has the parameters \(text: str\)"),
        (Keyed, {}, "is no function, but a class"),
        (3, {}, "reward: 3 is no function, but of type int; a reward function is"),
        (None, {}, "reward: None is no function, but of type NoneType"),
        ([], {}, "names no function"),
        ({}, {}, "names no function"),
        ("", {}, "reward: '' in '' names no function; write 'module:function'"),
        ("exact", {}, "reward: 'exact' in 'exact' names no function"),
        (["exact"], {}, "reward: 'exact' names no function; write 'module:function'"),
        ("no_such_module_here:f", {}, "cannot be loaded: ModuleNotFoundError"),
        ("json:nothing", {}, "cannot be loaded: AttributeError"),
        ("json:JSONDecoder", {}, "is no function, but a class"),
        ([exact, exact], {}, "two functions are named 'exact', so their parts"),
        (
            {exact: float("nan")},
            {},
            "the weight of 'exact' is nan; it must be a finite",
        ),
        ({exact: "1"}, {}, "the weight of 'exact' is '1'"),
        ({exact: True}, {}, "the weight of 'exact' is True"),
        ({exact: 10**400}, {}, "the weight of 'exact' is 1000"),
        (exact, {"threshold": float("inf")}, "reward: threshold is inf"),
        (exact, {"threshold": "1"}, "reward: threshold is '1'"),
        (exact, {"deadline_s": 0}, "reward: deadline_s=0 must be above 0"),
        (exact, {"deadline_s": float("nan")}, "reward: deadline_s is nan"),
    ],
)
def test_what_cannot_be_used_is_named_at_once(
    functions: Any, options: dict, message: str
):
    with pytest.raises(ConfigError, match=message):
        RewardVerifier(functions, **options)


@pytest.mark.parametrize(
    ("text", "functions"),
    [
        ("a:f", {"a:f": 1.0}),
        ("a:f=1,b:g=0.2", {"a:f": 1.0, "b:g": 0.2}),
        ("my_package.mod:fn=0.5", {"my_package.mod:fn": 0.5}),
        (" a:f = -1e-3 ,b.c:D.g ", {"a:f": -0.001, "b.c:D.g": 1.0}),
    ],
)
def test_rewards_in_text(text: str, functions: dict[str, float]):
    assert parse_rewards(text) == {"type": "reward", "functions": functions}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            (
                "reward: '' in '' names no function; write 'module:function', with"
                " '=weight'"
            ),
        ),
        ("a:f,", "reward: '' in 'a:f,' names no function"),
        ("f=1", "reward: 'f' in 'f=1' names no function"),
        ("a:b:c", "reward: 'a:b:c' in 'a:b:c' names no function"),
        ("a/b:f", "reward: 'a/b:f' in"),
        (
            "a:f=",
            (
                "reward: the weight of 'a:f' is ''; it must be a finite number, such as"
                " a:f=0.5"
            ),
        ),
        ("a:f=much", "reward: the weight of 'a:f' is 'much'"),
        ("a:f=1=2", "reward: the weight of 'a:f' is '1=2'"),
        ("a:f=nan", "reward: the weight of 'a:f' is 'nan'"),
        ("a:f=1e999", "reward: the weight of 'a:f' is '1e999'"),
        ("a:f,a:f=2", "reward: 'a:f' is given twice in 'a:f,a:f=2'"),
    ],
)
def test_what_are_no_rewards_in_text(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_rewards(text)


@given(st.text(alphabet="ab:f=,.1 -\x00é\ud800", max_size=40) | st.text(max_size=20))
def test_any_text_is_parsed_or_refused(text: str):
    try:
        parsed = parse_rewards(text)
    except ConfigError:
        return
    again = ",".join(f"{path}={w!r}" for path, w in parsed["functions"].items())
    assert parse_rewards(again) == parsed


def test_long_text_is_refused_in_linear_time():
    for text in ("a." * 50_000, "a:f=" * 50_000, "a" * 200_000, "a:f=1" + "0" * 10**5):
        with pytest.raises(ConfigError):
            parse_rewards(text)
