"""What a verifier is and how it is asked: it may be anybody's program."""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from aipo_env.errors import (
    ConfigError,
    VerifierError,
    error_text,
    is_hopeless,
    shown,
)
from aipo_env.records import (
    FAILED,
    Consult,
    Message,
    Task,
    Verdict,
    VerdictStatus,
    check_parts,
)
from aipo_env.threads import check_cancelled

MAX_VERDICT_S = 600.0
"""A verifier that takes longer hangs.

The episode then ends without a verdict, and the run goes on.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeView:
    """What there is of an episode when its verifier is asked.

    Args:
        task: The task, with its gold answer.
        answer: The text of the turn that is judged: the final one, or the last so far.
        messages: All that the policy was shown and wrote, in order.
        consults: The accounts of consultations, of agents and of tools, in the order of
            the calls.
        tools: The episode's own instances of tools that are classes, by the name of the
            class.
        reward_parts: What earlier turns earned, by name.
        aided: Whether the policy could consult.
    """

    task: Task
    answer: str = field(repr=False)
    messages: tuple[Message, ...] = field(default=(), repr=False)
    consults: tuple[Consult, ...] = field(default=(), repr=False)
    tools: Mapping[str, Any] = field(default_factory=dict, repr=False)
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    aided: bool = False


@runtime_checkable
class Verifier(Protocol):
    """Decides what an answer is worth. Its text is a model's: read it, never run it.

    A `verify` with a parameter named `episode` is given an `EpisodeView` as well. A
    verifier may also have `async turn_reward(task, text, episode)`, which is asked
    after every turn that is not the last; see `run_turn_reward`. One with a true
    attribute `has_own_deadline` is waited for as long as it takes.
    """

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict on the final turn of an episode."""


def judged(status: VerdictStatus, **details: Any) -> Verdict:
    """Return the verdict of a status: 1.0 for "correct", otherwise 0.0.

    Where the verifier or the gold failed there is no reward.

    Args:
        details: Further fields of the verdict, by name.
    """
    if status in FAILED:
        return Verdict(correct=None, reward=None, status=status, **details)
    correct = status == "correct"
    return Verdict(correct=correct, reward=float(correct), status=status, **details)


Way = Literal["", "keyword", "position"]
"""How a function is given the episode: not at all, by name, or as third argument."""
_WAYS: WeakKeyDictionary[Any, Way] = WeakKeyDictionary()
"""Ways of functions that were read before: every answer asks for one."""


def episode_way(function: Callable[..., Any]) -> Way:
    """Return how a function of (task, text) wants the episode, by its parameters.

    Functions whose parameters cannot be read, as many builtins, want none.
    """
    # A bound method is made anew each time it is looked up; what it is bound to changes
    # nothing.
    key = getattr(function, "__func__", function)
    with suppress(KeyError, TypeError):  # what can be no key is read each time
        return _WAYS[key]
    way = _read_way(function)
    with suppress(TypeError):
        _WAYS[key] = way
    return way


def _read_way(function: Callable[..., Any]) -> Way:
    try:
        own = inspect.signature(function, follow_wrapped=False)
        meant = meant_signature(function)
    except (TypeError, ValueError):
        return ""
    if "episode" not in meant.parameters:
        return ""
    # A decorator may pass on positional arguments only.
    with suppress(TypeError):
        own.bind(None, None, episode=None)
        return "keyword"
    return "position"


def meant_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's own signature, or that of what it wraps.

    The signature of what it wraps counts if the function has `*args` or `**kwargs`, and
    so passes anything on.

    Raises:
        TypeError, ValueError: Its parameters cannot be read.
    """
    own = inspect.signature(function, follow_wrapped=False)
    kinds = {parameter.kind for parameter in own.parameters.values()}
    passes_on = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    if kinds & passes_on:
        return inspect.signature(function)
    return own


def check_call(function: Callable[..., Any], who: str, form: str) -> None:
    """Check that a function can be called with (task, text).

    And with the episode, if it wants that.

    Args:
        who: Names it in the message.
        form: Says in the message what is valid.

    Raises:
        ConfigError: It cannot, or its parameters cannot be read.
    """
    try:
        signature = meant_signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{who}: its parameters cannot be read; {form}. Wrap it in a function of "
            "your own."
        ) from error
    way = episode_way(function)
    try:
        if way == "keyword":
            signature.bind(None, None, episode=None)
        elif way == "position":
            signature.bind(None, None, None)
        else:
            signature.bind(None, None)
    except TypeError as error:
        raise ConfigError(
            f"{who} has the parameters {str(signature)[:200]}; {form}."
        ) from error


def call_with_episode(
    function: Callable[..., Any],
    task: Task,
    text: str,
    episode: EpisodeView | None,
) -> Any:
    """Return what a function of (task, text) returns, given the episode if it wants it.

    One that is asynchronous returns an awaitable.
    """
    way = episode_way(function)
    if way == "keyword":
        return function(task, text, episode=episode)
    if way == "position":
        return function(task, text, episode)
    return function(task, text)


def takes_episode(verifier: Any) -> bool:
    """Return whether a verifier's `verify` has a parameter named `episode`."""
    verify = getattr(verifier, "verify", None)
    return verify is not None and episode_way(verify) != ""


def _time_for(verifier: Verifier) -> float | None:
    """Return how long a verifier may take; None where it has a deadline of its own."""
    has_own = getattr(verifier, "has_own_deadline", False)
    return None if has_own else MAX_VERDICT_S


async def run_verifier(
    verifier: Verifier, task: Task, text: str, episode: EpisodeView | None = None
) -> Verdict:
    """Return a verifier's verdict.

    If it fails, return one of status "error", which says nothing about the policy.

    Raises:
        ConfigError, ImportError, SandboxUnavailable: The verifier can never succeed;
            see `is_hopeless`.
    """
    try:
        async with asyncio.timeout(_time_for(verifier)):
            verdict = await call_with_episode(verifier.verify, task, text, episode)
        if not isinstance(verdict, Verdict):
            raise VerifierError(f"no Verdict, but {type(verdict).__name__}")
        return verdict
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        # A cancellation of this task goes on; one from within is the verifier's fault.
        check_cancelled()
        if is_hopeless(error):
            raise
        return judged("error", reason=error_text(error))


def rewards_turns(verifier: Verifier) -> bool:
    """Return whether a verifier has a `turn_reward`."""
    return getattr(verifier, "turn_reward", None) is not None


async def run_turn_reward(
    verifier: Verifier, task: Task, text: str, episode: EpisodeView
) -> dict[str, float]:
    """Return what a turn that is not the last earns, by name.

    It is nothing if the verifier has no `turn_reward`. A number is the part "turn",
    True is 1.0.

    Raises:
        VerifierError: It failed, or returned something else than a finite number or a
            mapping of them by name.
        ConfigError, ImportError, SandboxUnavailable: It can never succeed; see
            `is_hopeless`.
    """
    ask = getattr(verifier, "turn_reward", None)
    if ask is None:
        return {}
    is_named = episode_way(ask) == "keyword"
    try:
        if is_named:
            work = ask(task, text, episode=episode)
        else:
            work = ask(task, text, episode)
        async with asyncio.timeout(_time_for(verifier)):
            earned = await work
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        check_cancelled()
        if is_hopeless(error):
            raise
        raise VerifierError(f"turn_reward raised {error_text(error)}") from error
    try:
        parts = earned if isinstance(earned, Mapping) else {"turn": earned}
        return read_parts(parts.items())
    except Exception as error:  # a mapping may be anybody's program as well
        valid = "a finite number or a mapping of them by name"
        raise VerifierError(
            f"turn_reward returned {shown(earned)}: {error_text(error)}. "
            f"Return {valid}."
        ) from error


def read_parts(pairs: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """Return the parts of a reward that somebody's function returned, as plain numbers.

    Raises:
        ValueError: As `check_parts`.
    """
    return check_parts((name, plain_number(value)) for name, value in pairs)


def plain_number(value: Any) -> Any:
    """Return Python's own number for a scalar of NumPy or a tensor without dimensions.

    True and False become floats. Anything else is returned as it is.
    """
    # The libraries themselves need not be there: what has no dimensions and an `item`
    # is one of theirs.
    is_scalar = getattr(value, "shape", None) == ()
    if is_scalar and callable(getattr(value, "item", None)):
        value = value.item()
    return float(value) if isinstance(value, bool) else value
