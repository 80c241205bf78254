"""A plain Python function is a verifier: it says what an answer earns.

def exact(task, text):
    return text.strip() == task.answer

build_scenario(verifier=exact)
build_scenario(verifier={"type": "reward", "functions": {"my_package:exact": 1.0, "my_package:brief": 0.2}})
"""

import asyncio
import inspect
import math
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from aipo_env.errors import ConfigError, error_text, is_hopeless, shown
from aipo_env.records import (
    MAX_PART_CHARS,
    MAX_PARTS,
    Task,
    Verdict,
    VerdictStatus,
    finite,
)
from aipo_env.registry import load_attribute
from aipo_env.threads import Places, check_cancelled, in_thread
from aipo_env.verifiers.base import (
    EpisodeView,
    call_with_episode,
    check_call,
    judged,
    plain_number,
    read_parts,
)

AT_ONCE = 32
"""Synchronous functions that one verifier runs at once, in each event loop."""
VALID = (
    "return a finite number, True or False, a dict of finite numbers by name "
    "('correct': True or False may be among them), or a Verdict"
)
FORM = "a reward function is fn(task, text) or fn(task, text, episode)"
_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_WRITE = "write 'module:function', with '=weight' after it if that is not 1"


def parse_rewards(text: str) -> dict[str, Any]:
    """Return the spec of the reward functions in "a:f" or "a:f=1,b:g=0.2"; a weight is 1 unless it is given.

    Nothing is imported.

    Raises:
        ConfigError: An item is no "module:function", or its weight no finite number, or it comes twice.
    """
    functions: dict[str, float] = {}
    for item in text.split(","):
        path, has_weight, weight = (part.strip() for part in item.partition("="))
        if not _PATH.fullmatch(path):
            raise ConfigError(
                f"reward: {shown(path)} in {shown(text)} names no function; {_WRITE}, such as my_package:exact=0.5."
            )
        if path in functions:
            raise ConfigError(f"reward: {path!r} is given twice in {shown(text)}.")
        functions[path] = _weight(path, weight) if has_weight else 1.0
    return {"type": "reward", "functions": functions}


def _weight(path: str, text: str) -> float:
    try:
        return finite("", float(text))
    except ValueError:
        raise ConfigError(
            f"reward: the weight of {path!r} is {shown(text)}; it must be a finite number, such as {path}=0.5."
        ) from None


class RewardVerifier:
    """Has functions say what an answer earns; the reward is the weighted sum of what they return.

    A function is `fn(task, text)`, sync or async; one with a parameter named `episode` is given the `EpisodeView`
    too, or None where an answer is judged without its episode. It returns

    - a number, True counting as 1.0: one part of the reward, named after the function;
    - a dict of such numbers: a part each. `"correct": True or False` is no part: it says whether the answer is right;
    - a `Verdict`, whose parts, or else its reward, count as above, and which says whether the answer is right.

    Of several functions, the parts of a dict or a Verdict are named "function/part". The answer is correct if all
    functions that say so agree; if none does, when the reward reaches `threshold`.

    Anything else, an exception, and silence beyond the deadline make a verdict of status "error" without a reward:
    it says nothing about the policy, and the episode is not trained on.

    Synchronous functions run in threads, at most 32 at once, so they must be safe there. A thread cannot be ended:
    one that never returns lives on and gives its place to the next.

    Args:
        functions: One function, or "module:function", or several of them in a list, or a mapping from them to their
            weights; a weight is 1 unless it is given. In text, as in `parse_rewards`.
        threshold: The reward from which an answer is correct, where no function says whether it is.
        deadline_s: Seconds that each function has for an answer.

    Raises:
        ConfigError: There is no function, one cannot be imported or called with (task, text), two have one name, or
            a number is not finite.
    """

    has_own_deadline = True
    """Each call has; waiting for a place is no fault of an answer."""

    def __init__(
        self, functions: Any, *, threshold: float = 1.0, deadline_s: float = 60.0
    ) -> None:
        self.functions = tuple(
            _function(given, weight) for given, weight in _weighted(functions)
        )
        names = [function.name for function in self.functions]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"reward: two functions are named {name!r}, so their parts could not be told apart. Rename one."
                )
        self.threshold = _finite("threshold", threshold)
        self.deadline_s = _finite("deadline_s", deadline_s)
        if self.deadline_s <= 0:
            raise ConfigError(f"reward: deadline_s={deadline_s!r} must be above 0.")
        self._places = Places(AT_ONCE)

    def __repr__(self) -> str:
        """Return what the verdicts depend on."""
        weights = {function.name: function.weight for function in self.functions}
        return f"RewardVerifier({weights}, threshold={self.threshold})"

    async def verify(
        self, task: Task, text: str, episode: EpisodeView | None = None
    ) -> Verdict:
        """Return the verdict of all functions together.

        Raises:
            ConfigError, ImportError, SandboxUnavailable: A function raised it; see `is_hopeless`.
        """
        asked = [
            self._ask(function, task, text, episode) for function in self.functions
        ]
        # A single function, the usual case, needs no task of its own.
        said = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
        for one in said:
            if one.failure is not None:
                return one.failure
        try:
            return self._add_up(said)
        except (ValueError, OverflowError) as error:
            names = ", ".join(function.name for function in self.functions)
            return judged("error", reason=f"the rewards of {names}: {error}")

    def _add_up(self, said: "list[_Said]") -> Verdict:
        parts: dict[str, float] = {}
        for function, one in zip(self.functions, said, strict=True):
            for key, number in one.parts.items():
                parts[self._part(function.name, key)] = number * function.weight
        if not parts:
            raise ValueError(f"no function gave a number; {VALID}")
        reward = math.fsum(parts.values())
        claims = [one.correct for one in said if one.correct is not None]
        # What adds up to the threshold but for rounding reaches it.
        slack = 1e-9 * max(1.0, abs(self.threshold))
        correct = all(claims) if claims else reward >= self.threshold - slack
        shown_by = [one.verdict for one in said if one.verdict is not None]
        status: VerdictStatus = "correct" if correct else _why_not(shown_by)
        if not shown_by:
            return Verdict(correct=correct, reward=reward, status=status, parts=parts)
        return replace(
            shown_by[0], correct=correct, reward=reward, status=status, parts=parts
        )

    def _part(self, name: str, key: str) -> str:
        if not key:
            return name
        return key if len(self.functions) == 1 else f"{name}/{key}"

    async def _ask(
        self,
        function: "_Function",
        task: Task,
        text: str,
        episode: EpisodeView | None,
    ) -> "_Said":
        """Return what a function says; a failure of its own is said as well."""
        try:
            answer = await self._answer(function, task, text, episode)
            return _read(function.name, answer)
        except _Unfit as fault:
            reason = str(fault)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            check_cancelled()
            if is_hopeless(error):
                raise
            reason = f"raised {error_text(error)}"
        reason = f"reward function {function.name!r} {reason}; {VALID}."
        return _Said(failure=judged("error", reason=reason))

    async def _answer(
        self,
        function: "_Function",
        task: Task,
        text: str,
        episode: EpisodeView | None,
    ) -> Any:
        call = partial(call_with_episode, function.call, task, text, episode)
        # The deadline is the function's own: waiting for a place is no fault of it.
        async with nullcontext() if function.is_async else self._places.one():
            try:
                async with asyncio.timeout(self.deadline_s) as deadline:
                    answer = (
                        call()
                        if function.is_async
                        else await in_thread(call, "aipo-reward")
                    )
                    return await answer if inspect.isawaitable(answer) else answer
            except TimeoutError:
                if deadline.expired():
                    raise _Unfit(f"said nothing within {self.deadline_s:g} s") from None
                raise


class _Unfit(Exception):
    """What is wrong with a function's answer: the end of a sentence that begins with its name."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What one function says of an answer; the part named "" is the function's own."""

    parts: Mapping[str, float] = field(default_factory=dict)
    correct: bool | None = None
    verdict: Verdict | None = None
    failure: Verdict | None = None


def _read(name: str, answer: Any) -> _Said:
    """Return what a function says by what it returned."""
    if isinstance(answer, Verdict):
        if answer.reward is None:
            reason = f"reward function {name!r} could not decide: {answer.reason}"
            return _Said(failure=replace(answer, reason=reason, parts={}))
        parts = answer.parts or {"": answer.reward}
        return _Said(parts, answer.correct, answer)
    try:
        if isinstance(answer, Mapping):
            return _read_mapping(answer)
        return _Said({"": finite("it", plain_number(answer))})
    except Exception as error:  # a mapping or a number may be anybody's program
        fault = f": {error_text(error)}" if isinstance(answer, Mapping) else ""
        raise _Unfit(f"returned {shown(answer)}{fault}") from error


def _read_mapping(answer: Mapping[Any, Any]) -> _Said:
    correct = None
    parts = []
    # One beyond the most parts that there may be, and the claim, are enough to refuse the rest.
    for name, value in islice(answer.items(), MAX_PARTS + 2):
        is_claim = isinstance(name, str) and name == "correct"
        if is_claim and isinstance(value, bool | np.bool_):
            correct = bool(value)
        else:
            parts.append((name, value))
    return _Said(read_parts(parts), correct)


def _why_not(verdicts: list[Verdict]) -> VerdictStatus:
    """Return the status of what is not correct: the first verdict's that says why, or "wrong"."""
    for verdict in verdicts:
        if verdict.correct is False and verdict.status != "correct":
            return verdict.status
    return "wrong"


@dataclass(frozen=True, slots=True)
class _Function:
    """A reward function with its name and weight."""

    name: str
    call: Callable[..., Any]
    weight: float

    @property
    def is_async(self) -> bool:
        """Whether a call of it is to be awaited, and needs no thread."""
        # An object may be called by a method of its own.
        ways = (self.call, type(self.call).__call__)
        return any(map(inspect.iscoroutinefunction, ways))


def _weighted(functions: Any) -> list[tuple[Any, Any]]:
    """Return functions, or what names them, with their weights."""
    if isinstance(functions, str):
        functions = parse_rewards(functions)["functions"]
    if isinstance(functions, Mapping):
        pairs = list(functions.items())
    elif isinstance(functions, list | tuple):
        pairs = [(function, 1.0) for function in functions]
    else:
        pairs = [(functions, 1.0)]
    if not pairs:
        raise ConfigError(f"reward: functions={functions!r} names no function; {FORM}.")
    return pairs


def _function(given: Any, weight: Any) -> _Function:
    """Return a reward function that can be called."""
    if isinstance(given, str):
        if not _PATH.fullmatch(given):
            raise ConfigError(f"reward: {shown(given)} names no function; {_WRITE}.")
        call = load_attribute(given, "reward")
        name = re.split("[:.]", given)[-1]
    else:
        call, name = given, _name(given)
    if not callable(call) or isinstance(call, type):
        what = "a class" if isinstance(call, type) else f"of type {type(call).__name__}"
        raise ConfigError(f"reward: {shown(given)} is no function, but {what}; {FORM}.")
    who = f"reward function {name!r}"
    check_call(call, who, FORM)
    return _Function(name, call, _finite(f"the weight of {name!r}", weight))


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    return str(name)[:MAX_PART_CHARS]


def _finite(what: str, value: Any) -> float:
    try:
        return finite(f"reward: {what}", value)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
