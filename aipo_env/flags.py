"""An environment on the command line: one flag for every field, and short forms.

    --environment.source file:tasks.jsonl --environment.rules.max-turns 3
    --environment file:tasks.jsonl        the id or the source
    --agents openai:MODEL@URL             the agents
    --reward my_module:fn=1,other:fn=0.2  reward functions with their weights
    --max-tokens 2048                     rules that are set most, and --max-turns,
                                          --max-context-tokens, --consult-budget,
                                          --system-prompt

A value that begins with "{" or "[" is JSON.
"""

import contextlib
import difflib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from aipo_env.errors import ConfigError
from aipo_env.rollout.environment import (
    AgentsSpec,
    CodecSpec,
    Environment,
    SourceSpec,
    ToolSpecs,
    VerifierSpec,
    is_id,
    pointed_at,
)
from aipo_env.tasks.rows import read_json
from aipo_env.verifiers.rewards import parse_rewards

SHORT_FORMS = (
    "Short forms: --environment SPEC is the id or the source, --agents SPEC the agents,"
    " --reward module:function=1,… the reward; --max-tokens, --max-turns,"
    " --max-context-tokens, --consult-budget and --system-prompt are those of"
    " --environment.rules, where max-tokens is max-policy-tokens, all that the policy"
    " may write in an episode, and system-prompt is plain-prompt, what it is told"
    " before a task."
)
"""What `--help` of a command says of them."""
_RULES = {
    "--max-tokens": "--environment.rules.max-policy-tokens",
    "--max-turns": "--environment.rules.max-turns",
    "--max-context-tokens": "--environment.rules.max-context-tokens",
    "--consult-budget": "--environment.rules.consult-budget",
    "--system-prompt": "--environment.rules.plain-prompt",
}
"""Short forms of rules."""
_ELSEWHERE = {
    "--learning-rate": "--lr",
    "--model": "--policy",
    "--model-name-or-path": "--policy",
    "--dataset": "--environment",
    "--data": "--environment",
    "--env": "--environment",
    "--epochs": "--num-steps",
    "--max-steps": "--num-steps",
    "--steps": "--num-steps",
    "--batch-size": "--groups-per-step",
    "--num-generations": "--group-size",
    "--output": "--out",
    "--output-dir": "--out",
    "--max-new-tokens": "--max-tokens",
    "--max-completion-length": "--max-tokens",
    "--max-length": "--max-context-tokens",
    "--verifier": "--reward",
    "--reward-funcs": "--reward",
    "--beta": "--objective.kl-coef",
    "--lora-r": "--compute.lora-rank",
    "--lora": "--compute.lora-rank",
    "--save-steps": "--checkpoint-every",
    "--eval-steps": "--evaluation.every",
    "--threads": "--num-threads",
}
"""What other trainers call an option, and what it is called here."""
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*")

_COMPONENTS = tuple(
    part | None for part in (SourceSpec, AgentsSpec, VerifierSpec, CodecSpec)
)
"""The types of those fields of an `Environment` that one spec fills."""


def read_spec(text: str) -> Any:
    """Read a spec: JSON where it begins like an object or a list, and else the text.

    Raises:
        ValueError: It is no JSON.
    """
    if text.lstrip().startswith(("{", "[")):
        return read_json(text)
    return text


def _shown(value: Any) -> str:
    """Return a default as the help shows it."""
    return value if isinstance(value, str) else json.dumps(value, default=repr)


def flag_types() -> Any:
    """Return how tyro reads the fields of an `Environment`."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def component(info: Any) -> Any:
        """Read a component's spec from one argument."""
        # None leaves a type to tyro's own rules.
        if info.type not in _COMPONENTS:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="SPEC",
            instance_from_str=lambda arguments: read_spec(arguments[0]),
            is_instance=lambda value: True,
            str_from_instance=lambda value: [_shown(value)],
        )

    @registry.primitive_rule
    def tools(info: Any) -> Any:
        """Read the specs of tools, one argument each."""
        if info.type != ToolSpecs | None:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="SPEC ...",
            instance_from_str=lambda arguments: tuple(map(read_spec, arguments)),
            is_instance=lambda value: True,
            str_from_instance=lambda value: [_shown(tool) for tool in value or ()],
        )

    return registry


@contextlib.contextmanager
def nearest_flags(
    arguments: Sequence[str], read: Callable[[Sequence[str]], object]
) -> Iterator[None]:
    """Where what is within exits for an unknown option, name the nearest one.

    Args:
        arguments: The command line.
        read: Reads a command line, and prints the help where that is asked for.
    """
    try:
        yield
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        known = {*_FLAG.findall(_help(read)), *_RULES}
        for word in arguments:
            flag = word.partition("=")[0].replace("_", "-")
            if not flag.startswith("--") or flag in known:
                continue
            near = difflib.get_close_matches(flag, known, n=1)
            name = _ELSEWHERE.get(flag, "")
            name = name if name in known else "".join(near)
            if name:
                print(f"aipo: {flag}: did you mean {name}?", file=sys.stderr)
        raise


def _help(read: Callable[[Sequence[str]], object]) -> str:
    """Return the help of a command."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        read(["--help"])
    return printed.getvalue()


def expanded(arguments: Sequence[str]) -> list[str]:
    """Return a command line with its short forms written as an environment's flags.

    The short forms are those of this module, and `--source SPEC`.

    Raises:
        ConfigError: A value is missing, or cannot be read.
    """
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        flag, has_value, value = word.partition("=")
        if flag not in ("--environment", "--agents", "--source", "--reward"):
            rest.append(_whole_flag(word))
            continue
        # "--source=toy" or "--source toy".
        value = _value(flag, value if has_value else next(words, ""))
        if flag == "--reward":
            rest += ["--environment.verifier", json.dumps(parse_rewards(value))]
        elif flag != "--environment":
            field_name = flag.removeprefix("--")
            rest += [f"--environment.{field_name}", value]
        elif value.lstrip().startswith("{") and "type" not in _read(flag, value):
            # An object with a "type" is the spec of a source.
            raise ConfigError(
                f"{flag}: write the fields of an environment as flags:"
                " --environment.id, --environment.source,"
                " --environment.rules.max-turns …"
            )
        elif is_id(value):
            rest += ["--environment.id", value]
        else:
            rest += ["--environment.source", value]
    return rest


def environment_named(text: str, environment: Environment) -> Environment:
    """Return the environment that a text names, with single fields put over it.

    Args:
        text: An id, the spec of a source, or JSON of either or of an environment.
        environment: The fields to put over it.

    Raises:
        ConfigError: It cannot be read.
    """
    return Environment.of(_read("environment", text)).changed(environment)


def _whole_flag(word: str) -> str:
    """Return a word of a command line, with a short form of a rule written out."""
    flag, equals, value = word.partition("=")
    return f"{_RULES.get(flag.replace('_', '-'), flag)}{equals}{value}"


def _value(flag: str, value: str) -> str:
    """Return the value of a flag; the next flag or the end is none."""
    if not value or value.startswith("--"):
        raise ConfigError(f"{flag}: the value is missing.")
    return value


def short_forms(
    arguments: Sequence[str], default: Environment
) -> tuple[list[str], Environment]:
    """Take the short forms out of a command line.

    Args:
        arguments: The command line.
        default: The environment to start from.

    Returns:
        The other arguments, and the environment to start from.

    Raises:
        ConfigError: A value is missing or cannot be read.
    """
    rest: list[str] = []
    environment = default
    words = iter(arguments)
    for word in words:
        flag, has_value, value = word.partition("=")
        if flag not in ("--environment", "--agents", "--reward"):
            rest.append(_whole_flag(word))
            continue
        value = _value(flag, value if has_value else next(words, ""))
        if flag == "--environment":
            environment = pointed_at(environment, _read(flag, value))
        elif flag == "--reward":
            environment = replace(environment, verifier=parse_rewards(value))
        else:
            environment = replace(environment, agents=_read(flag, value))
    return rest, environment


def _read(flag: str, text: str) -> Any:
    """Read a flag's spec; what cannot be read is a ConfigError that names the flag."""
    try:
        return read_spec(text)
    except ValueError as error:
        raise ConfigError(f"{flag}: {text!r:.200} is no JSON: {error}.") from error
