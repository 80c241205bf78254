"""What a docstring says of a function: what it is for, and what each parameter is."""

import inspect
from collections.abc import Mapping

import docstring_parser


def read_docstring(text: str) -> tuple[str, Mapping[str, str]]:
    """Return a docstring's first paragraph, and what it says of each parameter it
    describes.

    It may be written in Google's style, NumPy's or Sphinx's. One in none of them has
    its first paragraph only.
    """
    text = inspect.cleandoc(text)
    first_paragraph = text.partition("\n\n")[0]
    try:
        read = docstring_parser.parse(text)
    except Exception:  # a docstring may hold anything
        return _one_line(first_paragraph), {}
    described = {
        each.arg_name: _one_line(each.description)
        for each in read.params
        if each.description
    }
    summary = read.short_description or ""
    if not read.blank_after_short_description:
        rest = (read.long_description or "").partition("\n\n")[0]
        summary = f"{summary} {rest}"
    return _one_line(summary or first_paragraph), described


def _one_line(text: str) -> str:
    return " ".join(text.split())
