"""Makes a verifier of what names or is one: a spec, an object, a plain function."""

import inspect
from collections.abc import Mapping
from typing import Any

from aipo_env.errors import ConfigError, shown
from aipo_env.registry import VERIFIERS, Spec, construct
from aipo_env.verifiers.base import Verifier, check_call, meant_signature
from aipo_env.verifiers.rewards import RewardVerifier

VERIFY = "a verifier has `async verify(task, text)`"
VERIFIER_FORMS = (
    f"{VERIFY}; a reward function is `fn(task, text)` or `fn(task, text, episode)`"
)
_OPTIONS = {"threshold", "deadline_s"}
"""What a spec may say of a reward function, as of `RewardVerifier`."""
_NUM_ARGUMENTS = 2
"""A reward function needs so many: the task and the text."""


def build_verifier(spec: Spec | Any) -> Verifier:
    """Return the verifier that a spec names, or that an object is.

    A function of which two parameters must be given is a reward function: see
    `RewardVerifier`, whose options a spec may set: `{"type": "my_package:exact",
    "threshold": 0.5}`. A class, or a function that needs no arguments or gets them from
    the spec, makes the verifier.

    Raises:
        ConfigError: It is neither, there is none of that name, it cannot be loaded, or
            an option is wrong.
    """
    if is_reward_function(spec):
        return RewardVerifier(spec)
    who = f"verifier {shown(spec)}"
    if not isinstance(spec, str | Mapping):
        value = VERIFIERS.build(spec)  # which says what is none
        verifier = construct(value, {}, who) if _makes_verifiers(value) else value
        return _checked(verifier, who)
    _, value, options = VERIFIERS.find(spec)
    if is_reward_function(value) and options.keys() <= _OPTIONS:
        return construct(RewardVerifier, {"functions": value, **options}, who)
    # "module:name" may name a verifier as it is, or what makes one.
    is_factory = bool(options) or _makes_verifiers(value)
    return _checked(VERIFIERS.build(spec) if is_factory else value, who)


def is_reward_function(value: Any) -> bool:
    """Return whether something is called with (task, text).

    It is if two of its positional parameters, or more, have no default.
    """
    if not callable(value) or isinstance(value, type) or hasattr(value, "verify"):
        return False
    try:
        parameters = meant_signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    needed = [
        parameter
        for parameter in parameters
        if parameter.kind in positional and parameter.default is inspect.Parameter.empty
    ]
    return len(needed) >= _NUM_ARGUMENTS


def _makes_verifiers(value: Any) -> bool:
    """Return whether something is a class, or is called without arguments."""
    if isinstance(value, type):
        return True
    if not callable(value) or hasattr(value, "verify"):
        return False
    try:
        inspect.signature(value).bind()
    except (TypeError, ValueError):
        return False
    return True


def _checked(value: Any, who: str) -> Verifier:
    """Return a verifier as it is.

    Raises:
        ConfigError: It is none.
    """
    verify = getattr(value, "verify", None)
    # A class has `verify`, too, and cannot be asked.
    if isinstance(value, type) or not callable(verify):
        raise ConfigError(f"{who}: {VERIFIER_FORMS}; this is {_described(value)}.")
    check_call(verify, f"{who}: its verify", VERIFY)
    verifier: Verifier = value
    return verifier


def _described(value: Any) -> str:
    """Return what something is, for a message that says what would be a verifier."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if not callable(value):
        return f"{shown(value)}, a {type(value).__name__}"
    try:
        parameters = str(inspect.signature(value))[:200]
    except (TypeError, ValueError):
        return f"{shown(value)}, whose parameters cannot be read"
    return f"a function with the parameters {parameters}"
