"""Every error the project raises on purpose.

AipoError
├── ConfigError         a setting, spec or command-line value (also a ValueError)
├── DataError           a data file, row or field (also a ValueError)
├── PolicyError         a model, tokenizer or chat template that cannot be used
├── CheckpointError     a checkpoint that cannot be read or written
├── Interrupted         Ctrl-C, after the work in hand was finished and saved
│   └── Terminated      SIGTERM; the run is saved, to be started again (exit code 75)
├── AgentError          an agent gave no usable reply
├── ToolError           a tool could not be made or used
├── VerifierError       a verifier could not decide
├── NoGradient          a run that learns nothing, stopped
└── SandboxUnavailable  the sandbox cannot give its guarantee, so it refuses

Each message is one paragraph: the offending value, what is allowed, and what to do
next. The command line prints it without a traceback and exits with code 2 where nothing
else is said.
"""

import difflib
import math
import sys
from collections.abc import Iterable
from numbers import Integral, Real
from types import FrameType
from typing import Any


class AipoError(Exception):
    """Root of the tree."""

    exit_code = 2


class ConfigError(AipoError, ValueError):
    """A setting, spec or command-line value that cannot be used."""


class DataError(AipoError, ValueError):
    """A data file, row or field that cannot be used."""


class PolicyError(AipoError):
    """A model, tokenizer or chat template that cannot be used."""


class PolicyLost(PolicyError):
    """A policy that somebody else runs can never answer again; the run ends."""


class CheckpointError(AipoError):
    """A checkpoint that cannot be read or written."""


class Interrupted(AipoError):
    """Ctrl-C, after the work in hand was finished and saved."""


class Terminated(Interrupted):
    """SIGTERM: everything is saved, and the same command goes on from there."""

    exit_code = 75  # EX_TEMPFAIL, at which a batch system can queue the job again


class AgentError(AipoError):
    """An agent gave no usable reply."""


class ToolError(AipoError):
    """A tool could not be made or used."""


class VerifierError(AipoError):
    """A verifier could not decide."""


class NoGradient(AipoError):
    """A run whose steps have nothing to learn from, stopped; what it has is saved."""


class SandboxUnavailable(AipoError):
    """The sandbox cannot give its guarantee, so it refuses to run anything."""


MAX_SHOWN = 80
"""Characters of a value that a message shows."""
_MAX_MESSAGE = 1000
"""Characters of another error's message that a message shows."""


def suggest(value: str, valid: Iterable[str]) -> str:
    """Return a sentence that lists the valid values and names the nearest to one."""
    options = sorted(valid)
    # What is long is near to nothing, and comparing it takes long.
    near = difflib.get_close_matches(value[:MAX_SHOWN], options, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Valid: {', '.join(options)}.{hint}"


def check_whole(what: str, value: Any, low: int = 0, high: float = math.inf) -> None:
    """Raise ConfigError unless `value` is an `int` in range; `what` names it."""
    is_int = type(value) is int  # True is an instance of int
    if not is_int or not low <= value <= high:
        limits = _limits(low, high)
        raise ConfigError(f"{what}={shown(value)} must be a whole number{limits}.")


def whole(what: str, value: Any, low: int = 0, high: float = math.inf) -> int:
    """Return a whole number, of Python's or NumPy's, as `int`.

    Raises:
        ConfigError: As `check_whole`.
    """
    is_number = isinstance(value, Integral) and not isinstance(value, bool)
    number = int(value) if is_number else value
    check_whole(what, number, low, high)
    return int(number)


def check_number(what: str, value: Any, low: float = 0, high: float = math.inf) -> None:
    """Raise ConfigError unless `value` is a number in range; `what` names it."""
    try:
        is_fit = isinstance(value, Real) and low <= float(value) <= high
    except OverflowError:  # an integer beyond what a float holds
        is_fit = False
    if not is_fit:
        limits = _limits(low, high)
        raise ConfigError(f"{what}={shown(value)} must be a number{limits}.")


def _limits(low: float, high: float) -> str:
    if high == math.inf:
        return f", at least {low}"
    return f" from {low} to {high}"


def check_choice(what: str, value: Any, valid: Iterable[str]) -> None:
    """Raise ConfigError unless `value` is one of the valid ones; `what` names it."""
    options = tuple(valid)
    if value not in options:
        raise ConfigError(f"{what}={shown(value)}. {suggest(str(value), options)}")


def shown(value: object, most: int = MAX_SHOWN) -> str:
    """Return the start of a value's repr, or its type where it has none."""
    try:
        if isinstance(value, str | bytes):
            value = value[:most]  # the repr of a long text is longer still
        return repr(value)[:most]
    except Exception:  # an integer of many digits has none, and a stranger's may raise
        return f"<{type(value).__name__}>"


def message_of(error: BaseException, most: int = _MAX_MESSAGE) -> str:
    """Return the start of an error's message, whatever its own `__str__` does."""
    try:
        return str(error)[:most]
    except Exception:
        return "(its message cannot be read)"


def error_text(error: BaseException, most: int = _MAX_MESSAGE) -> str:
    """Return the type and the start of the message of an error."""
    return f"{type(error).__name__}: {message_of(error, most)}"


_HOPELESS = (ConfigError, ImportError, SandboxUnavailable)
"""Errors that come again, however often the same is tried."""


def is_hopeless(error: BaseException) -> bool:
    """Return whether code failed in a way in which each other call will fail, too.

    The run had better end then. Such are ConfigError, ImportError and
    SandboxUnavailable, unless one of them came through code that was run from a text:
    that is a model's, and no model may end a run.
    """
    if not isinstance(error, _HOPELESS):
        return False
    traceback = error.__traceback__
    while traceback is not None:
        if _is_from_text(traceback.tb_frame):
            return False
        traceback = traceback.tb_next
    return True


def _is_from_text(frame: FrameType) -> bool:
    """Return whether a frame runs code compiled from a text, not from a file."""
    # Such code has a name like <string>; Python's own modules, <frozen importlib>.
    file = frame.f_code.co_filename
    if not file.startswith("<") or file.startswith("<frozen "):
        return False
    # A dataclass has its __init__ made from a text, in the namespace of the module that
    # it is written in.
    module_name = str(frame.f_globals.get("__name__"))
    module = sys.modules.get(module_name)
    # A text may call itself by the name of any module, but not have its namespace.
    is_of_module = module is not None and module.__dict__ is frame.f_globals
    return not (is_of_module and frame.f_code.co_name == "__init__")
