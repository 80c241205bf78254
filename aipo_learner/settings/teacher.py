"""What may score the policy's own tokens, as the text that names it says."""

from pathlib import Path
from typing import Any, Literal

from aipo_env import ConfigError, parse_spec, suggest

SHOWN = ("replies", "verdict", "answer")
"""What the policy may be shown that is its own teacher: what the task's agents said,
what came of checking the answer, the solution.
"""
TeacherKind = Literal["self", "vllm", "model"]
"""The policy under another prompt, a vLLM server, a Hugging Face model."""

_FIELD = "config: objective.teacher"
_EXAMPLE = "vllm:http://HOST:8000"
_SERVER_OPTIONS = ("url", "startup_s", "request_s")


def read_teacher(teacher: str) -> tuple[TeacherKind, dict[str, Any]]:
    """Return of which kind a teacher is, and what else is said of it, by name.

    That is `shown` of the policy itself, `path` of a model, and of a server `url` and
    the arguments of `VLLMTeacher` that are given.

    Args:
        teacher: As `ObjectiveConfig` has it; not empty.

    Raises:
        ConfigError: It names none.
    """
    if not isinstance(teacher, str) or not teacher.strip():
        raise ConfigError(f"{_FIELD}={teacher!r} must be a text. {_valid(teacher)}")
    kind, _, rest = teacher.partition(":")
    if kind == "self":
        if rest not in SHOWN:
            raise ConfigError(f"{_FIELD}={teacher!r}. {_valid(teacher)}")
        return "self", {"shown": rest}
    if kind == "vllm":
        return "vllm", _server(teacher)
    # A folder may have any name; another text with a colon is a kind that is not there.
    if rest and not Path(teacher).is_dir():
        raise ConfigError(f"{_FIELD}={teacher!r}. {_valid(teacher)}")
    return "model", {"path": teacher}


def _valid(teacher: Any) -> str:
    """Return what may be written, and which of it is nearest."""
    own = [f"self:{shown}" for shown in SHOWN]
    names = suggest(str(teacher), [*own, _EXAMPLE])
    return f"{names} Or a model: its folder, or OWNER/NAME on the Hub."


def _server(teacher: str) -> dict[str, Any]:
    """Return the address of a server, and how long it is waited for.

    Raises:
        ConfigError: There is no address, or another option.
    """
    _, options = parse_spec(teacher, _FIELD)
    named = {name or "url": value for name, value in options.items()}
    url = str(named.get("url", ""))
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"{_FIELD}={teacher!r} names no server: write its address, {_EXAMPLE}."
        )
    for name, value in named.items():
        if name not in _SERVER_OPTIONS:
            raise ConfigError(
                f"{_FIELD}={teacher!r} has {name!r}. {suggest(name, _SERVER_OPTIONS)}"
            )
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name != "url" and not (is_number and value > 0):
            raise ConfigError(
                f"{_FIELD}={teacher!r}: {name}={value!r} must be a number of seconds"
                " above 0."
            )
    return named
