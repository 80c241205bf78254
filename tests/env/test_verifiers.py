"""How verifiers are found, asked, and kept from ending a run by their own faults."""

import asyncio
import functools
from typing import Any

import numpy as np
import pytest

from aipo_env import (
    VERIFIERS,
    ByKind,
    ConfigError,
    EpisodeView,
    MathVerifier,
    RewardVerifier,
    SandboxUnavailable,
    Task,
    Verdict,
    VerifierError,
    build_verifier,
    run_sync,
    run_turn_reward,
    run_verifier,
    takes_episode,
)

TASK = Task(id="t", prompt="?", answer="42")
VIEW = EpisodeView(task=TASK, answer="42")
YES = Verdict(correct=True, reward=1.0, status="correct")


class Judge:
    """Returns or raises what it is told."""

    def __init__(self, result: Any = YES) -> None:
        self.result = result

    async def verify(self, task: Task, text: str) -> Verdict:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class Watcher:
    """Wants the episode."""

    async def verify(self, task: Task, text: str, episode: Any = None) -> Verdict:
        reward = float(episode is VIEW)
        return Verdict(correct=True, reward=reward, status="correct")


class Strict:
    async def verify(self, task: Task, text: str, *, episode: Any) -> Verdict:
        return await Watcher().verify(task, text, episode)


class Placed:
    async def verify(self, task: Task, text: str, episode: Any, /) -> Verdict:
        return await Watcher().verify(task, text, episode)


class Wrapped:
    """A decorated method."""

    def decorated(method: Any) -> Any:
        @functools.wraps(method)
        async def wrapper(self, *given: Any, **named: Any) -> Verdict:
            return await method(self, *given, **named)

        return wrapper

    @decorated
    async def verify(self, task: Task, text: str, episode: Any) -> Verdict:
        return await Watcher().verify(task, text, episode)


class Lent:
    """Its method is another's."""

    __slots__ = ("verify",)

    def __init__(self, verify: Any) -> None:
        self.verify = verify


@pytest.mark.parametrize(
    "verifier",
    [
        Watcher(),
        Strict(),
        Placed(),
        Wrapped(),
        Lent(Watcher().verify),
        Lent(functools.partial(Watcher().verify)),
        RewardVerifier(lambda task, text, episode: float(episode is VIEW)),
    ],
    ids=lambda verifier: type(verifier).__name__,
)
def test_a_verifier_that_names_the_episode_is_given_it(verifier: Any):
    for _ in range(2):
        assert takes_episode(verifier)
        assert run_sync(run_verifier(verifier, TASK, "42", VIEW)).reward == 1.0


class Unweighable:
    """What can be held by no weak reference and is no key."""

    __slots__ = ()
    __hash__ = None

    async def __call__(self, task: Task, text: str) -> Verdict:
        return YES


def test_others_are_given_task_and_text():
    for verifier in (
        Judge(),
        MathVerifier(),
        ByKind(),
        Lent(Unweighable()),
        Lent(max),
        Lent(3),
        object(),
    ):
        assert not takes_episode(verifier)
    assert run_sync(run_verifier(Judge(), TASK, "42", VIEW)) == YES
    assert run_sync(run_verifier(Lent(Unweighable()), TASK, "42", VIEW)) == YES
    assert run_sync(run_verifier(MathVerifier(), TASK, "\\boxed{42}", VIEW)).correct


def test_what_the_view_shows_is_not_in_its_repr():
    view = EpisodeView(task=TASK, answer="a secret", tools={"Shop": "a secret"})
    assert "secret" not in repr(view)
    assert (view.messages, view.consults, view.reward_parts) == ((), (), {})


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (ValueError("boom"), "ValueError: boom"),
        (SystemExit(3), "SystemExit: 3"),
        (asyncio.CancelledError(), "CancelledError: "),
        (Mute(), "Mute: (its message cannot be read)"),
        (None, "VerifierError: no Verdict, but NoneType"),
        (True, "VerifierError: no Verdict, but bool"),
    ],
)
def test_a_verifier_that_fails_gives_an_error_verdict(result: Any, reason: str):
    verdict = run_sync(run_verifier(Judge(result), TASK, "42", VIEW))
    assert verdict == Verdict(correct=None, reward=None, status="error", reason=reason)


@pytest.mark.parametrize(
    "error", [ConfigError("x"), ImportError("x"), SandboxUnavailable("x")]
)
def test_what_no_answer_can_mend_is_raised(error: Exception):
    with pytest.raises(type(error)):
        run_sync(run_verifier(Judge(error), TASK, "42"))
    with pytest.raises(type(error)):
        run_sync(run_turn_reward(Turns(error), TASK, "42", VIEW))


def test_code_of_the_models_cannot_end_the_run():
    class Careless:
        async def verify(self, task: Task, text: str) -> Verdict:
            exec(text, {})
            return YES

    verdict = run_sync(run_verifier(Careless(), TASK, "import no_such_module_here"))
    assert verdict.status == "error"
    assert verdict.reason.startswith("ModuleNotFoundError: No module named 'no_such")


def test_a_cancelled_verdict_is_cancelled():
    class Slow:
        async def verify(self, task: Task, text: str) -> Verdict:
            await asyncio.sleep(3600)
            return YES

    async def cancelled() -> bool:
        work = asyncio.ensure_future(run_verifier(Slow(), TASK, "42"))
        await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait({work})
        return work.cancelled()

    assert run_sync(cancelled())


class Turns(Judge):
    """Pays for turns."""

    async def turn_reward(self, task: Task, text: str, episode: EpisodeView) -> Any:
        assert episode is VIEW
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class TurnsByName(Judge):
    async def turn_reward(self, task: Task, text: str, *, episode: EpisodeView) -> Any:
        return 0.5


class TurnsByPlace(Judge):
    async def turn_reward(self, task: Task, text: str, view: EpisodeView) -> Any:
        return float(view is VIEW)


@pytest.mark.parametrize(
    ("verifier", "parts"),
    [
        (Judge(), {}),
        (Turns(0.25), {"turn": 0.25}),
        (Turns(-1), {"turn": -1.0}),
        (Turns(True), {"turn": 1.0}),
        (Turns(np.float32(0.5)), {"turn": 0.5}),
        (Turns({"move": 0.5, "hint": -1}), {"move": 0.5, "hint": -1.0}),
        (Turns({}), {}),
        (TurnsByName(), {"turn": 0.5}),
        (TurnsByPlace(), {"turn": 1.0}),
    ],
)
def test_turns_earn_by_name(verifier: Any, parts: dict[str, float]):
    assert run_sync(run_turn_reward(verifier, TASK, "42", VIEW)) == parts


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            None,
            (
                "turn_reward returned None: ValueError: .* Return a finite number or a"
                " mapping"
            ),
        ),
        ("1", "turn_reward returned '1'"),
        (float("nan"), "turn_reward returned nan"),
        (10**400, "turn_reward returned 1000"),
        ({"a": "1"}, "the part 'a' of the reward is '1'"),
        ({"": 1.0}, "a part of the reward is named ''"),
        (KeyError("k"), "turn_reward raised KeyError: 'k'"),
        (SystemExit(3), "turn_reward raised SystemExit: 3"),
        (asyncio.CancelledError(), "turn_reward raised CancelledError"),
    ],
)
def test_what_turns_cannot_earn(result: Any, message: str):
    with pytest.raises(VerifierError, match=message):
        run_sync(run_turn_reward(Turns(result), TASK, "42", VIEW))


def exact(task: Task, text: str) -> bool:
    return text == task.answer


async def with_episode(task: Task, text: str, episode: EpisodeView) -> float:
    return float(episode is VIEW)


def make_judge() -> Judge:
    return Judge()


def make_named(name: str, reward: float) -> Judge:
    return Judge(Verdict(correct=True, reward=reward, status="correct", reason=name))


READY = Judge()


def verdict_of(spec: Any) -> Verdict:
    return run_sync(run_verifier(build_verifier(spec), TASK, "42", VIEW))


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (exact, {"exact": 1.0}),
        (with_episode, {"with_episode": 1.0}),
        (lambda task, text: 0.5, {"<lambda>": 0.5}),
        (f"{__name__}:exact", {"exact": 1.0}),
        (f"{__name__}:with_episode", {"with_episode": 1.0}),
        (f"reward:{__name__}:exact", {"exact": 1.0}),
        (f"reward:{__name__}:exact=0.5", {"exact": 0.5}),
        (f"reward:{__name__}:exact,threshold=2", {"exact": 1.0}),
        ({"type": "reward", "functions": f"{__name__}:exact"}, {"exact": 1.0}),
        (
            {
                "type": "reward",
                "functions": {
                    f"{__name__}:exact": 1.0,
                    f"{__name__}:with_episode": 0.2,
                },
                "threshold": 1.0,
            },
            {"exact": 1.0, "with_episode": 0.2},
        ),
        (RewardVerifier(exact), {"exact": 1.0}),
        (READY, {}),
        (f"{__name__}:READY", {}),
        (Judge, {}),
        (f"{__name__}:Judge", {}),
        (make_judge, {}),
        (f"{__name__}:make_judge", {}),
        ({"type": f"{__name__}:make_named", "name": "n", "reward": 1.0}, {}),
    ],
)
def test_whatever_names_or_is_a_verifier(spec: Any, parts: dict[str, float]):
    verdict = verdict_of(spec)
    assert (verdict.correct, verdict.parts) == (
        verdict.reward >= 1.0 and spec != f"reward:{__name__}:exact,threshold=2",
        parts,
    )


def test_options_of_a_reward_function_stand_in_its_spec():
    spec = {"type": f"{__name__}:exact", "threshold": 2.0, "deadline_s": 5}
    assert verdict_of(spec).correct is False
    assert build_verifier(spec).deadline_s == 5.0
    assert verdict_of(f"{__name__}:exact:threshold=0.5").correct is True


def test_a_registered_function_is_a_reward_function(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(VERIFIERS, "_added", {})
    VERIFIERS.register("exactly")(exact)
    assert verdict_of("exactly").parts == {"exact": 1.0}


def test_our_own_are_built_as_ever():
    assert isinstance(build_verifier("auto"), ByKind)
    assert isinstance(build_verifier("math"), MathVerifier)
    assert build_verifier(READY) is READY


def alone(text: str) -> float:
    return 1.0


class Backward:
    async def verify(self, text: str) -> Verdict:
        return YES


class Empty:
    """No verifier."""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            alone,
            (
                r"a verifier has `async verify\(task, text\)`; a reward function is .*;"
                r" this is a function with the parameters \(text: str\)"
            ),
        ),
        (f"{__name__}:alone", r"this is a function with the parameters \(text: str\)"),
        (Empty(), "this is <.*Empty object.*, a Empty"),
        (Empty, "this is <.*Empty object"),
        (f"{__name__}:TASK", "this is Task.*, a Task"),
        (
            Backward(),
            (
                r"its verify has the parameters \(text: str\).*; a verifier has `async"
                r" verify"
            ),
        ),
        (
            lambda task, text, reference: 1.0,
            "reward function '<lambda>' has the parameters",
        ),
        (print, "this is"),
        (None, "verifier: None is no spec"),
        (3, "verifier: 3 is no spec"),
        ([exact], "verifier: .* is no spec"),
        ("maths", "there is no 'maths'.*Did you mean 'math'"),
        ({"functions": "a:f"}, "needs a 'type'"),
        ("reward", "missing 1 required positional argument: 'functions'"),
        (
            {"type": "reward", "functions": "a:f", "treshold": 1},
            "Did you mean 'threshold'",
        ),
        ({"type": "reward", "functions": []}, "names no function"),
        ({"type": f"{__name__}:exact", "treshold": 1}, "there is no option 'treshold'"),
    ],
)
def test_what_is_no_verifier(spec: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        build_verifier(spec)
