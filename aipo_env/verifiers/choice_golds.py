"""Golds of multiple choice as data files write them, brought to the option's letter."""

import re
from collections.abc import Iterable, Sequence

from aipo_env.errors import shown
from aipo_env.records import Task
from aipo_env.verifiers.choice_lines import letter_on_line
from aipo_env.verifiers.choice_options import LETTERS, is_text

_NUMBER = re.compile(r"[0-9]{1,2}")


def first_number(tasks: Iterable[Task]) -> int | None:
    """Return whether golds that are numbers count their options from 0 or from 1.

    They say so themselves: an option 0 is there only if the first is 0, and one with
    the number of the options only if the first is 1. None: neither stands in any task,
    or both do.
    """
    starts: set[int] = set()
    for task in tasks:
        gold = task.answer.strip()
        if not _NUMBER.fullmatch(gold) or letter_on_line(gold, task.choices):
            continue
        if int(gold) == 0:
            starts.add(0)
        elif int(gold) == len(task.choices):
            starts.add(1)
    return starts.pop() if len(starts) == 1 else None


def gold_letter(answer: str, choices: Sequence[str], first: int | None = None) -> str:
    """Return the letter of the option that a gold names.

    It may be the letter in any dress (`b`, `(B)`, `B) 24 m/s`), the option's text, or
    its number.

    Args:
        answer: The gold.
        choices: The options.
        first: The number of the first option; None if that is not known.

    Raises:
        ValueError: It names none of them, or not one alone; the message says why.
    """
    if not choices:
        raise ValueError("there are no options")
    if len(choices) > len(LETTERS):
        raise ValueError(f"{len(choices)} options, of which {len(LETTERS)} get letters")
    number = answer.strip()
    if is_text(number, choices) and number in LETTERS[: len(choices)]:
        raise ValueError(f"{shown(answer)} may be an option's letter or its text")
    letter = letter_on_line(answer, tuple(choices))
    if letter:
        _check_number(number, letter, first)
        return letter
    if not _NUMBER.fullmatch(number):
        raise ValueError(
            f"{shown(answer)} is no letter of its {len(choices)} choices, nor the text"
            " or the number of one"
        )
    if first is None:
        raise ValueError(
            f"{shown(answer)} may count options from 0 or from 1; write letters"
        )
    place = int(number) - first
    if not 0 <= place < len(choices):
        raise ValueError(
            f"{shown(answer)} is no number of one of the {len(choices)} options,"
            f" counted from {first}"
        )
    return LETTERS[place]


def _check_number(number: str, letter: str, first: int | None) -> None:
    """Check that an option's text does not count another option.

    Raises:
        ValueError: It does.
    """
    if first is None or not _NUMBER.fullmatch(number):
        return
    if int(number) - first != LETTERS.index(letter):
        raise ValueError(f"{shown(number)} may be an option's text or its number")
