"""Write docs/reference_cli.md and docs/reference_gym.md: every option, every argument.

python docs/make_references.py
"""

import contextlib
import dataclasses
import inspect
import io
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from unittest.mock import patch

import docstring_parser
import gymnasium

from aipo_env import (
    SHORT_FORMS,
    DialogueRules,
    Environment,
    PoolLimits,
    TokenEnv,
    TurnEnv,
)
from aipo_env.cli import OWN, main
from aipo_env.gym.episode_env import EpisodeEnv
from aipo_env.gym.vector import VectorEnv
from aipo_env.rollout.scenario import BYTE_LIMITS

DOCS = Path(__file__).parent
WIDTH = 110
"""Columns of the help that is read; from some 130 on, groups stand side by side."""
CLI_HEAD = """\
# Reference: the command aipo

Every command, every option, its default, as `--help` of each command has them;
`python docs/make_references.py` writes this page from that. What is "not set" is chosen
as the sentence says.
"""
PLAYED_HEAD = """\
## What is played

The same for every command that plays or trains; what each field may be:
[environments.md](environments.md). "Not set" leaves what the environment has; the
defaults of rules and pool are in [reference_gym.md](reference_gym.md).
"""
GYM_HEAD = """\
# Reference: gym.make

What `gymnasium.make(ID, …)` and `gymnasium.make_vec(ID, num_envs=…, …)` take for our
environments, and the classes `TokenEnv` and `TurnEnv`. What is played is an
`Environment`, which training and every command take too. How an episode goes:
[environments.md](environments.md). `python docs/make_references.py` writes this page
from the code.
"""
RULES_HEAD = f"""\
## The fields of rules

In a mapping, as `rules={{"max_turns": 3}}`; on a command line
`--environment.rules.max-turns 3`. Where tokens are bytes, as in `gym.make`,
`max_policy_tokens` is {BYTE_LIMITS["max_policy_tokens"]} unless it is given, and
`max_context_tokens` {BYTE_LIMITS["max_context_tokens"]}.
"""
POOL_HEAD = """\
## The fields of pool

In a mapping, as `pool={"deadline_s": 20}`; on a command line
`--environment.pool.deadline-s 20`.
"""
PLAYED = "environment"
"""How the titles of groups begin that stand once for all commands."""
GROUP = re.compile(
    r"^ (?P<title>\S.*?) *\n -+ *\n(?P<body>(?:  .*\n| *\n)*)", re.MULTILINE
)
"""Options in a help, under their title and a rule."""
RULE = re.compile(r"^  -{9,} *$", re.MULTILINE)
"""What in a group ends the sentence about it."""
OPTION = re.compile(r"^  (\S.*(?:\n {3,}\S.*)*)", re.MULTILINE)
"""An option, with the lines that are further indented."""
DEFAULT = re.compile(r" ?\((?:(?P<required>required)|default: ?(?P<default>.*))\)$")
COMMAND = re.compile(r"`aipo \w+ [^`]+`")
"""What tests/test_docs.py would run."""
NOT_RUN = "<!-- not run (names options) -->\n"
UNSET = {"None": "not set", "null": "not set", "''": "empty", "": "none"}
"""How a default reads that is no value."""
PLAIN_TYPES = (bool, int, float, str)


@dataclass(frozen=True)
class Option:
    """An option of a command, or an argument."""

    name: str
    text: str
    default: str


def command_names() -> list[str]:
    """Return the commands of this project; packages of others may add some."""
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))
    plugged = project["project"]["entry-points"]["aipo.commands"]
    return sorted([*OWN, *plugged])


def help_of(command: str) -> str:
    """Return what a command prints for `--help`."""
    out = io.StringIO()
    with (
        patch.dict(os.environ, {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        main([command, "--help"])
    return out.getvalue()


def groups(text: str) -> Iterator[tuple[str, list[Option]]]:
    """Yield the groups of options in a help, each with its title."""
    for group in GROUP.finditer(text):
        *_, body = RULE.split(group["body"])
        options = [read_option(match[1]) for match in OPTION.finditer(body)]
        shown = [option for option in options if not option.name.startswith("-h,")]
        yield group["title"].removesuffix("options").strip(), shown


def read_option(text: str) -> Option:
    """Read an option: its name, what it means, and its default in brackets."""
    name, _, rest = text.replace("\n", "  ").partition("  ")
    # None is the default of these, and no value that one would give.
    name = name.replace("{None}|", "").replace("{None,", "{")
    rest = " ".join(rest.split())
    match = DEFAULT.search(rest)
    if match is None:
        return Option(name, rest, "")
    default = match["required"] or shown_default(match["default"].strip())
    return Option(name, rest[: match.start()], default)


def shown_default(text: str) -> str:
    """Return how a default stands in a table."""
    return UNSET.get(text, f"`{text}`")


def description(text: str) -> str:
    """Return what a help says between its usage and its options."""
    _, *paragraphs = text[: next(GROUP.finditer(text)).start()].split("\n\n")
    lines = [" ".join(paragraph.split()) for paragraph in paragraphs]
    # Said once for all commands.
    said = "\n\n".join(line for line in lines if line)
    return said.replace(SHORT_FORMS, "").rstrip()


def table(options: list[Option], head: str) -> str:
    """Return a table.

    Raises:
        ValueError: An option has no sentence.
    """
    rows = [f"| {head} | | default |", "|---|---|---|"]
    for option in options:
        if not option.text:
            raise ValueError(
                f"{option.name} has no sentence: write one where it is declared."
            )
        cells = (f"`{option.name}`", option.text, option.default)
        # A table of Markdown ends a cell at a bar.
        whole = [cell.replace("|", "\\|") for cell in cells]
        rows.append(f"| {' | '.join(whole)} |")
    mark = NOT_RUN if any(map(COMMAND.search, rows)) else ""
    return mark + "\n".join(rows)


def cli_page() -> str:
    """Return the page of commands.

    Raises:
        ValueError: An option has no sentence, or commands differ in what is played.
    """
    parts = [CLI_HEAD.rstrip()]
    played: dict[str, str] = {}
    for command in command_names():
        text = help_of(command)
        parts += [f"## aipo {command}", description(text)]
        plays = False
        for title, options in groups(text):
            head = "argument" if title == "positional arguments" else "option"
            if title.startswith(PLAYED):
                plays = True
                rows = table(options, head)
                if played.setdefault(title, rows) != rows:
                    raise ValueError(f"aipo {command}: its {title} options differ.")
            elif options:
                if title and head == "option":
                    parts.append(f"### aipo {command}: {title}")
                parts.append(table(options, head))
        if plays:
            parts.append("And [what is played](#what-is-played).")
    parts += [PLAYED_HEAD.rstrip(), SHORT_FORMS]
    for title, rows in played.items():
        parts += [f"### {title}", rows]
    return "\n\n".join(parts) + "\n"


def arguments(kind: Any) -> dict[str, Option]:
    """Return the arguments of a class by name; its docstring has their sentences."""
    texts = {}
    for parameter in docstring_parser.parse(inspect.getdoc(kind) or "").params:
        for name in parameter.arg_name.split(","):
            texts[name.strip()] = " ".join((parameter.description or "").split())
    hints = get_type_hints(kind if dataclasses.is_dataclass(kind) else kind.__init__)
    _, *parameters = inspect.signature(kind.__init__).parameters.values()
    rows = {}
    for parameter in parameters:
        name = parameter.name
        shown_name = name + values_of(hints.get(name))
        default = default_of(parameter.default)
        rows[name] = Option(shown_name, texts.get(name, ""), default)
    return rows


def values_of(hint: Any) -> str:
    """Return what a value may be where its type says it: `: int`, `: "a" | "b"`."""
    if get_origin(hint) is Mapping:
        return ": mapping"
    parts = [part for part in get_args(hint) or (hint,) if part is not type(None)]
    if get_origin(hint) is Literal:
        return ": " + " | ".join(f'"{part}"' for part in parts)
    if all(part in PLAIN_TYPES for part in parts):
        return ": " + " | ".join(part.__name__ for part in parts)
    return ""


def default_of(value: Any) -> str:
    """Return how the default of an argument stands in a table."""
    if value is inspect.Parameter.empty:
        return "required"
    # Made anew for each instance.
    if "factory" in repr(value):
        return "none"
    return shown_default(repr(value.value if isinstance(value, Enum) else value))


def gym_page() -> str:
    """Return the page of the arguments of `gymnasium.make`.

    Raises:
        ValueError: An argument has no sentence.
    """
    of_all = arguments(EpisodeEnv)
    of_environment = arguments(Environment)
    # The docstring of the one points to that of the other.
    played = [of_environment[name] for name in of_all if name in of_environment]
    others = [of_all[name] for name in of_all if name not in of_environment]
    faces = {}
    for face in (TokenEnv, TurnEnv):
        rows = arguments(face)
        faces[face] = [rows[name] for name in rows if name not in of_all]
    vector = [row for name, row in arguments(VectorEnv).items() if name != "options"]
    sections = [
        (GYM_HEAD, ""),
        ("## The ids", ids_table()),
        ("## What is played", table(played, "argument")),
        ("## How it is stepped", table(others, "argument")),
        ("### Token by token", table(faces[TokenEnv], "argument")),
        ("### Turn by turn", table(faces[TurnEnv], "argument")),
        ("### Many at once: gymnasium.make_vec", table(vector, "argument")),
        (RULES_HEAD, table(list(arguments(DialogueRules).values()), "rule")),
        (POOL_HEAD, table(list(arguments(PoolLimits).values()), "limit")),
    ]
    return (
        "\n\n".join(part.rstrip() for pair in sections for part in pair if part) + "\n"
    )


def ids_table() -> str:
    """Return the ids that importing `aipo_env` registers."""
    rows = ["| id | source | a step is |", "|---|---|---|"]
    for name, spec in sorted(gymnasium.registry.items()):
        if spec.entry_point == "aipo_env.gym:make_env":
            arguments = spec.kwargs
            rows.append(
                f"| `{name}` | `{arguments['source']}` | a {arguments['mode']} |"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    (DOCS / "reference_cli.md").write_text(cli_page(), encoding="utf-8")
    (DOCS / "reference_gym.md").write_text(gym_page(), encoding="utf-8")
