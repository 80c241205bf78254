"""The command `aipo lint`."""

from pathlib import Path

from tyro.conf import Positional

from aipo_env.errors import DataError
from aipo_env.render import escape_terminal
from aipo_env.stored import lint_episodes


def lint(file: Positional[Path]) -> None:
    """Say what is wrong with a file of episodes, line by line, and what training on it would assume.

    Args:
        file: JSON-lines file of episodes, from anywhere; docs/episodes.md says what a line holds.
    """
    notes: dict[str, list[int]] = {}
    bad_lines = set()
    for number, severity, text in lint_episodes(file):
        if severity == "error":
            bad_lines.add(number)
            print(escape_terminal(f"{file}:{number}: {' '.join(text.split())}"))
        else:
            notes.setdefault(text, []).append(number)
    for text, numbers in notes.items():
        where = f"line {numbers[0]}" + (
            f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
        )
        print(
            escape_terminal(
                f"note: {f'{where}: ' if numbers[0] else ''}{' '.join(text.split())}"
            )
        )
    if bad_lines:
        raise DataError(
            f"{file}: {len(bad_lines)} lines cannot be used; training refuses the file."
        )
    print("no errors")
