"""Whatever names or is a verifier, made into one: a spec, an object, a plain function."""

import inspect
from collections.abc import Mapping
from typing import Any

from aipo_env.errors import ConfigError, shown
from aipo_env.registry import VERIFIERS, Spec, construct
from aipo_env.verifiers.base import Verifier, check_call, meant_signature
from aipo_env.verifiers.rewards import RewardVerifier

VERIFY = "a verifier has `async verify(task, text)`"
FORMS = f"{VERIFY}; a reward function is `fn(task, text)` or `fn(task, text, episode)`"
_OPTIONS = {"threshold", "deadline_s"}


def build_verifier(spec: Spec | Any) -> Verifier:
    """Return the verifier that a spec names, or that an object is.

    A function of which two parameters must be given is a reward function: see `RewardVerifier`, whose options a
    spec may set: `{"type": "my_package:exact", "threshold": 0.5}`. A class, or a function that needs no arguments
    or gets them from the spec, makes the verifier.

    Raises:
        ConfigError: It is neither, there is none of that name, it cannot be loaded, or an option is wrong.
    """
    if is_reward_function(spec):
        return RewardVerifier(spec)
    who = f"verifier {shown(spec)}"
    if not isinstance(spec, str | Mapping):
        built = VERIFIERS.build(spec)  # which says what is none
        made = construct(built, {}, who) if _makes_verifiers(built) else built
        return _checked(made, who)
    _, found, options = VERIFIERS.find(spec)
    if is_reward_function(found) and options.keys() <= _OPTIONS:
        return construct(RewardVerifier, {"functions": found, **options}, who)
    is_factory = bool(options) or _makes_verifiers(found)
    return _checked(VERIFIERS.build(spec) if is_factory else found, who)


def is_reward_function(value: Any) -> bool:
    """Return whether something is called with (task, text): two positional parameters have no default."""
    if not callable(value) or isinstance(value, type) or hasattr(value, "verify"):
        return False
    try:
        parameters = meant_signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [
        parameter
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty
        and parameter.kind
        in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        )
    ]
    return len(needed) >= 2


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


def _checked(built: Any, who: str) -> Verifier:
    verify = getattr(built, "verify", None)
    if isinstance(built, type) or not callable(verify):
        raise ConfigError(f"{who}: {FORMS}; this is {_described(built)}.")
    check_call(verify, f"{who}: its verify", VERIFY)
    checked: Verifier = built
    return checked


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value):
        try:
            return (
                f"a function with the parameters {str(inspect.signature(value))[:200]}"
            )
        except (TypeError, ValueError):
            return f"{shown(value)}, whose parameters cannot be read"
    return f"{shown(value)}, a {type(value).__name__}"
