"""The command `aipo`.

Its own commands are functions whose arguments tyro reads from the command line. Other
packages add commands by the entry-point group `aipo.commands`. Such an entry point is a
function that takes the arguments as a list of texts and returns nothing; it is imported
only when its command is called.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from pathlib import Path

import tyro

from aipo_env.commands.doctor import doctor
from aipo_env.commands.extras import EXTRA_OF, how_to_install
from aipo_env.commands.table import COMMANDS
from aipo_env.errors import AipoError, ConfigError, suggest
from aipo_env.flags import expanded, flag_types, nearest_flags
from aipo_env.viewer.render import escape_terminal

OWN: dict[str, Callable[..., None]] = {**COMMANDS, "doctor": doctor}
"""The commands of this package."""
_PROJECT = ("aipo_env", "aipo_learner", "envs_data")
"""Packages of this project. They are light to import; what is within may not be."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: The command and its arguments; None: those of the process.

    Returns:
        0; after an error that was explained 2, or 75 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _run(arguments)
    except AipoError as error:
        # A message may repeat what a model or a file from elsewhere says.
        print(f"aipo: {escape_terminal(str(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(
            f"aipo: {escape_terminal(str(error))}. What was written before is whole.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("aipo: interrupted. What was saved before is whole.", file=sys.stderr)
        return 2
    return 0


def _run(arguments: list[str]) -> None:
    plugged = {entry.name: entry for entry in entry_points(group="aipo.commands")}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(plugged))
        return
    if arguments[0] in ("-V", "--version"):
        print(f"aipo-rl {version('aipo-rl')}")
        return
    name, *rest = arguments
    names = [*OWN, *plugged]
    if name not in names:
        raise ConfigError(f"there is no command {name!r}. {suggest(name, names)}")
    try:
        if name in OWN:
            _run_own(name, rest)
        else:
            plugged[name].load()(rest)
    except ImportError as error:
        raise _missing(name, error) from error


def _run_own(name: str, arguments: list[str]) -> None:
    """Run a command of this package."""
    function = OWN[name]
    given = arguments
    if "environment" in inspect.signature(function).parameters:
        # Short flags, such as --agents, stand for fields of the environment.
        arguments = expanded(arguments)

    def read(words: Sequence[str]) -> None:
        tyro.cli(function, args=words, prog=f"aipo {name}", registry=flag_types())

    with nearest_flags(given, read):
        read(arguments)


def _usage(plugged: dict[str, EntryPoint]) -> str:
    lines = [
        "usage: aipo COMMAND [OPTIONS]     aipo COMMAND --help says more",
        "       aipo --version",
        "",
    ]
    for name, command in OWN.items():
        lines.append(f"  {name:10} {_summary(command)}")
    for name, entry in sorted(plugged.items()):
        lines.append(f"  {name:10} {_plugged_summary(entry)}")
    return "\n".join(lines)


def _plugged_summary(entry: EntryPoint) -> str:
    """Return what a command that is plugged in does, or where it comes from.

    Nothing of it is imported. Of this project's packages the source is read; that of
    others is found only by importing them.
    """
    package = entry.module.partition(".")[0]
    if package not in _PROJECT:
        return f"from {package}"
    spec = find_spec(entry.module)
    if spec is None or spec.origin is None:
        return f"from {package}"
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            paragraph, _, _ = (ast.get_docstring(node) or "").partition("\n\n")
            return " ".join(paragraph.split())
    return f"from {package}"


def _summary(command: Callable[..., None]) -> str:
    """Return what a command does: the first paragraph of its docstring, in one line."""
    paragraph, _, _ = (command.__doc__ or "").partition("\n\n")
    return " ".join(paragraph.split())


def _missing(command: str, error: ImportError) -> Exception:
    """Return the error to show when something cannot be imported."""
    # A missing module of ours is a fault of ours, and its traceback says where.
    package = (error.name or "").split(".")[0]
    if package in ("", *_PROJECT):
        return error
    # Any package but those of extras is needed by somebody's own code.
    if isinstance(error, ModuleNotFoundError) and package in EXTRA_OF:
        return ConfigError(
            f"`aipo {command}` needs {package}, which is not installed: "
            f"{how_to_install(package)}."
        )
    return ConfigError(
        f"`aipo {command}` runs code that cannot be imported: {error}. Install what it"
        " needs, or mend its import."
    )


if __name__ == "__main__":
    sys.exit(main())
