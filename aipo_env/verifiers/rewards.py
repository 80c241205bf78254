"""A plain Python function is a verifier: it says what an answer earns.

def exact(task, text):
    return text.strip() == task.answer

build_scenario(verifier=exact)
build_scenario(
    verifier={
        "type": "reward",
        "functions": {"my_package:exact": 1.0, "my_package:brief": 0.2},
    }
)
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
VALID_REWARDS = (
    "return a finite number, True or False, a dict of finite numbers by name "
    "('correct': True or False may be among them), or a Verdict"
)
"""What a reward function may return, for messages."""
FORM = "a reward function is fn(task, text) or fn(task, text, episode)"
_ROUNDING = 1e-9
"""Relative slack of the threshold: adding up floats is off by less."""
_PATH = re.compile(
    r"""
      [^\W\d]\w* (?: \. [^\W\d]\w* )*       # my_package.rewards
    : [^\W\d]\w* (?: \. [^\W\d]\w* )*       # exact, Judge.exact
    """,
    re.VERBOSE,
)
_WRITE = "write 'module:function', with '=weight' after it if that is not 1"


def parse_rewards(text: str) -> dict[str, Any]:
    """Return the spec of the reward functions in "a:f" or "a:f=1,b:g=0.2".

    A weight is 1 unless it is given. Nothing is imported.

    Raises:
        ConfigError: An item is no "module:function", or its weight no finite number, or
            it comes twice.
    """
    functions: dict[str, float] = {}
    for item in text.split(","):
        path, equals, weight = (part.strip() for part in item.partition("="))
        if not _PATH.fullmatch(path):
            raise ConfigError(
                f"reward: {shown(path)} in {shown(text)} names no function; {_WRITE}, "
                "such as my_package:exact=0.5."
            )
        if path in functions:
            raise ConfigError(f"reward: {path!r} is given twice in {shown(text)}.")
        functions[path] = _weight(path, weight) if equals else 1.0
    return {"type": "reward", "functions": functions}


def _weight(path: str, text: str) -> float:
    try:
        return finite("", float(text))
    except ValueError:
        raise ConfigError(
            f"reward: the weight of {path!r} is {shown(text)}; it must be a finite "
            f"number, such as {path}=0.5."
        ) from None


class RewardVerifier:
    """Has functions say what an answer earns.

    The reward is the weighted sum of what they return.

    A function is `fn(task, text)`, sync or async; one with a parameter named `episode`
    is given the `EpisodeView` too, or None where an answer is judged without its
    episode. It returns

    - a number, True counting as 1.0: one part of the reward, named after the function;
    - a dict of such numbers: a part each. `"correct": True or False` is no part: it
      says whether the answer is right;
    - a `Verdict`, whose parts, or else its reward, count as above, and which says
      whether the answer is right.

    Of several functions, the parts of a dict or a Verdict are named "function/part".
    The answer is correct if all functions that say so agree; if none does, when the
    reward reaches `threshold`.

    Anything else, an exception, and silence beyond the deadline make a verdict of
    status "error" without a reward: it says nothing about the policy, and the episode
    is not trained on.

    Synchronous functions run in threads, at most 32 at once, so they must be safe
    there. A thread cannot be ended: one that never returns lives on and gives its place
    to the next.

    Args:
        functions: One function, or "module:function", or several of them in a list, or
            a mapping from them to their weights; a weight is 1 unless it is given. In
            text, as in `parse_rewards`.
        threshold: The reward from which an answer is correct, where no function says
            whether it is.
        deadline_s: Seconds that each function has for an answer.

    Raises:
        ConfigError: There is no function, one cannot be imported or called with (task,
            text), two have one name, or a number is not finite.
    """

    has_own_deadline = True
    """Each call has; waiting for a place is no fault of an answer."""

    def __init__(
        self, functions: Any, *, threshold: float = 1.0, deadline_s: float = 60.0
    ) -> None:
        self.functions = tuple(
            _function(reference, weight) for reference, weight in _weighted(functions)
        )
        names = [function.name for function in self.functions]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"reward: two functions are named {name!r}, so their parts could "
                    "not be told apart. Rename one."
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
            ConfigError, ImportError, SandboxUnavailable: A function raised it; see
                `is_hopeless`.
        """
        calls = [
            self._ask(function, task, text, episode) for function in self.functions
        ]
        # A single function, the usual case, needs no task of its own.
        if len(calls) == 1:
            statements = [await calls[0]]
        else:
            statements = await asyncio.gather(*calls)
        for statement in statements:
            if statement.failure is not None:
                return statement.failure
        try:
            return self._add_up(statements)
        except (ValueError, OverflowError) as error:
            names = ", ".join(function.name for function in self.functions)
            return judged("error", reason=f"the rewards of {names}: {error}")

    def _add_up(self, statements: "list[_Statement]") -> Verdict:
        """Return the verdict that all functions make together.

        Raises:
            ValueError: None gave a number, or the reward is not finite.
            OverflowError: The sum is too large for a float.
        """
        parts: dict[str, float] = {}
        for function, statement in zip(self.functions, statements, strict=True):
            for key, number in statement.parts.items():
                name = self._part(function.name, key)
                parts[name] = number * function.weight
        if not parts:
            raise ValueError(f"no function gave a number; {VALID_REWARDS}")
        # Not sum: what it returns would depend on the order of the functions.
        reward = math.fsum(parts.values())
        claims = [
            statement.correct
            for statement in statements
            if statement.correct is not None
        ]
        correct = all(claims) if claims else self._reaches_threshold(reward)
        verdicts = [
            statement.verdict
            for statement in statements
            if statement.verdict is not None
        ]
        status: VerdictStatus = "correct" if correct else _why_not(verdicts)
        if not verdicts:
            return Verdict(correct=correct, reward=reward, status=status, parts=parts)
        # What else there is in a verdict, such as the extracted answer, is the first's.
        return replace(
            verdicts[0], correct=correct, reward=reward, status=status, parts=parts
        )

    def _reaches_threshold(self, reward: float) -> bool:
        """Return whether a reward reaches the threshold, but for rounding."""
        slack = _ROUNDING * max(1.0, abs(self.threshold))
        return reward >= self.threshold - slack

    def _part(self, name: str, key: str) -> str:
        """Return the name of a part: of a function, or of a key in what it returned."""
        if not key:
            return name
        return key if len(self.functions) == 1 else f"{name}/{key}"

    async def _ask(
        self,
        function: "_Function",
        task: Task,
        text: str,
        episode: EpisodeView | None,
    ) -> "_Statement":
        """Return what a function says; its failure is a statement as well."""
        try:
            answer = await self._answer(function, task, text, episode)
            return _read(function.name, answer)
        except _Unfit as fault:
            what = str(fault)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            # Only a cancellation of this task goes on.
            check_cancelled()
            if is_hopeless(error):
                raise
            what = f"raised {error_text(error)}"
        reason = f"reward function {function.name!r} {what}; {VALID_REWARDS}."
        return _Statement(failure=judged("error", reason=reason))

    async def _answer(
        self,
        function: "_Function",
        task: Task,
        text: str,
        episode: EpisodeView | None,
    ) -> Any:
        """Return what a function returns, when it has its place and its time.

        Raises:
            _Unfit: It said nothing in time.
        """
        call = partial(call_with_episode, function.call, task, text, episode)
        place = nullcontext() if function.is_async else self._places.one()
        # The deadline is the function's own: waiting for a place is no fault of it.
        async with place:
            try:
                async with asyncio.timeout(self.deadline_s) as deadline:
                    if function.is_async:
                        answer = call()
                    else:
                        answer = await in_thread(call, "aipo-reward")
                    # A synchronous function may return an awaitable, as a lambda does
                    # that calls an asynchronous one.
                    return await answer if inspect.isawaitable(answer) else answer
            except TimeoutError:
                # The function may have raised one of its own.
                if deadline.expired():
                    raise _Unfit(f"said nothing within {self.deadline_s:g} s") from None
                raise


class _Unfit(Exception):
    """What is wrong with a function's answer.

    Its text ends a sentence that begins with the function's name.
    """


@dataclass(frozen=True, slots=True)
class _Statement:
    """What one function says of an answer; the part named "" is the function's own."""

    parts: Mapping[str, float] = field(default_factory=dict)
    correct: bool | None = None
    verdict: Verdict | None = None
    failure: Verdict | None = None


def _read(name: str, answer: Any) -> _Statement:
    """Return what a function says by what it returned."""
    if isinstance(answer, Verdict):
        if answer.reward is None:
            reason = f"reward function {name!r} could not decide: {answer.reason}"
            return _Statement(failure=replace(answer, reason=reason, parts={}))
        parts = answer.parts or {"": answer.reward}
        return _Statement(parts, answer.correct, answer)
    try:
        if isinstance(answer, Mapping):
            return _read_mapping(answer)
        return _Statement({"": finite("it", plain_number(answer))})
    except Exception as error:  # a mapping or a number may be anybody's program
        fault = f": {error_text(error)}" if isinstance(answer, Mapping) else ""
        raise _Unfit(f"returned {shown(answer)}{fault}") from error


def _read_mapping(answer: Mapping[Any, Any]) -> _Statement:
    correct = None
    parts = []
    # A mapping may have no end. One beyond the most parts that there may be, and the
    # claim, are enough to refuse the rest.
    for name, value in islice(answer.items(), MAX_PARTS + 2):
        is_claim = isinstance(name, str) and name == "correct"
        if is_claim and isinstance(value, bool | np.bool_):
            correct = bool(value)
        else:
            parts.append((name, value))
    return _Statement(read_parts(parts), correct)


def _why_not(verdicts: list[Verdict]) -> VerdictStatus:
    """Return the status of what is not correct.

    It is that of the first verdict that says why, else "wrong".
    """
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
        method = type(self.call).__call__
        return any(map(inspect.iscoroutinefunction, (self.call, method)))


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


def _function(reference: Any, weight: Any) -> _Function:
    """Return a reward function that can be called.

    Args:
        reference: The function, or "module:function".
    """
    if isinstance(reference, str):
        if not _PATH.fullmatch(reference):
            raise ConfigError(
                f"reward: {shown(reference)} names no function; {_WRITE}."
            )
        call = load_attribute(reference, "reward")
        name = re.split("[:.]", reference)[-1]
    else:
        call = reference
        name = _name(reference)
    # A class would be called, too, and make objects instead of judging.
    if not callable(call) or isinstance(call, type):
        what = "a class" if isinstance(call, type) else f"of type {type(call).__name__}"
        raise ConfigError(
            f"reward: {shown(reference)} is no function, but {what}; {FORM}."
        )
    who = f"reward function {name!r}"
    check_call(call, who, FORM)
    return _Function(name, call, _finite(f"the weight of {name!r}", weight))


def _name(function: Any) -> str:
    """Return what a function is called, which names its part of the reward."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    return str(name)[:MAX_PART_CHARS]


def _finite(what: str, value: Any) -> float:
    try:
        return finite(f"reward: {what}", value)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
