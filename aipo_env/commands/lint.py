"""The command `aipo lint`."""

from pathlib import Path

from tyro.conf import Positional

from aipo_env.errors import DataError
from aipo_env.stored import lint_episodes
from aipo_env.viewer.render import escape_terminal

_WHOLE_FILE = 0
"""What stands for a line's number in a note about all of them."""


def lint(file: Positional[Path]) -> None:
    """Say what is wrong with a file of episodes, and what training on it would assume.

    Args:
        file: JSON-lines file of episodes, from anywhere; docs/episodes.md says what a
            line holds.
    """
    notes: dict[str, list[int]] = {}
    bad_lines: set[int] = set()
    for number, severity, text in lint_episodes(file):
        if severity == "error":
            bad_lines.add(number)
            fault = " ".join(text.split())
            print(escape_terminal(f"{file}:{number}: {fault}"))
        else:
            # One note is often about every line: it is printed once, at the end.
            notes.setdefault(text, []).append(number)
    for text, numbers in notes.items():
        note = " ".join(text.split())
        print(escape_terminal(f"note: {_where(numbers)}{note}"))
    if bad_lines:
        raise DataError(
            f"{file}: {len(bad_lines)} lines cannot be used; training refuses the file."
        )
    print("no errors")


def _where(numbers: list[int]) -> str:
    """Return the lines that a note is about, in words; nothing for the whole file."""
    first, *others = numbers
    if first == _WHOLE_FILE:
        return ""
    more = f" and {len(others)} more" if others else ""
    return f"line {first}{more}: "
