"""The command `aipo lint`."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

from aipo_env.errors import DataError
from aipo_env.render import escape_terminal
from aipo_env.stored import lint_episodes


@dataclass(frozen=True)
class LintOptions:
    """Say line by line what is wrong with a file of episodes, and what training on it would assume."""

    file: Positional[Path]
    """JSON-lines file of episodes, from anywhere; docs/episodes.md says what a line holds."""


def lint(argv: list[str]) -> None:
    """Say what is wrong with a file of episodes, line by line."""
    options = tyro.cli(LintOptions, args=argv, prog="aipo lint")
    notes: dict[str, list[int]] = {}
    bad_lines = set()
    for number, severity, text in lint_episodes(options.file):
        if severity == "error":
            bad_lines.add(number)
            print(escape_terminal(f"{options.file}:{number}: {' '.join(text.split())}"))
        else:
            notes.setdefault(text, []).append(number)
    for text, numbers in notes.items():
        where = f"line {numbers[0]}" + (f" and {len(numbers) - 1} more" if len(numbers) > 1 else "")
        print(escape_terminal(f"note: {f'{where}: ' if numbers[0] else ''}{' '.join(text.split())}"))
    if bad_lines:
        raise DataError(f"{options.file}: {len(bad_lines)} lines cannot be used; training refuses the file.")
    print("no errors")
