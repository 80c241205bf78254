"""The command `aipo`.

Its own commands are functions whose arguments tyro reads from the command line. Other
packages add commands by the entry-point group `aipo.commands`. Such an entry point is a
function that takes the arguments as a list of texts and returns nothing; it is imported
only when its command is called.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points

import tyro

from aipo_env.commands.doctor import doctor
from aipo_env.commands.table import COMMANDS
from aipo_env.errors import AipoError, ConfigError, suggest
from aipo_env.flags import expanded, flag_types
from aipo_env.viewer.render import escape_terminal

OWN: dict[str, Callable[..., None]] = {**COMMANDS, "doctor": doctor}
"""The commands of this package."""
EXTRAS = {
    "jinja2": "report",
    "pyarrow": "data",
    "mcp": "mcp",
    "openai": "openai",
    "openenv": "openenv",
    "vllm": "vllm",
}
"""The extra that installs a package; "learner" installs all others."""
_PACKAGES = {*EXTRAS, "torch", "transformers", "safetensors", "tensorboard"}
"""What extras install. Any other package is needed by somebody's own code."""


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
    if "environment" in inspect.signature(function).parameters:
        # Short flags, such as --agents, stand for fields of the environment.
        arguments = expanded(arguments)
    tyro.cli(function, args=arguments, prog=f"aipo {name}", registry=flag_types())


def _usage(plugged: dict[str, EntryPoint]) -> str:
    lines = ["usage: aipo COMMAND [OPTIONS]     aipo COMMAND --help says more", ""]
    for name, command in OWN.items():
        lines.append(f"  {name:10} {_summary(command)}")
    for name, entry in sorted(plugged.items()):
        # By the package alone: to say more it would have to be imported.
        package = entry.value.split(".")[0]
        lines.append(f"  {name:10} from {package}")
    return "\n".join(lines)


def _summary(command: Callable[..., None]) -> str:
    """Return what a command does: the first paragraph of its docstring, in one line."""
    paragraph, _, _ = (command.__doc__ or "").partition("\n\n")
    return " ".join(paragraph.split())


def _missing(command: str, error: ImportError) -> Exception:
    """Return the error to show when something cannot be imported."""
    # A missing module of ours is a fault of ours, and its traceback says where.
    package = (error.name or "").split(".")[0]
    if package in ("", "aipo_env", "aipo_learner"):
        return error
    if isinstance(error, ModuleNotFoundError) and package in _PACKAGES:
        extra = EXTRAS.get(package, "learner")
        return ConfigError(
            f"`aipo {command}` needs {package}, which is not installed: "
            f'pip install "aipo-rl[{extra}]".'
        )
    return ConfigError(
        f"`aipo {command}` runs code that cannot be imported: {error}. Install what it"
        " needs, or mend its import."
    )


if __name__ == "__main__":
    sys.exit(main())
