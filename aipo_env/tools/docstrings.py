"""What a docstring says of a function: what it is for, and what each parameter is."""

import inspect
from collections.abc import Mapping

import docstring_parser


def read_docstring(text: str) -> tuple[str, Mapping[str, str]]:
    """Return a docstring's first paragraph, and its descriptions of parameters by name.

    It may be written in Google's style, NumPy's or Sphinx's. One in none of them has
    its first paragraph only.
    """
    text = inspect.cleandoc(text)
    first_paragraph = _first_paragraph(text)
    try:
        parsed = docstring_parser.parse(text)
    except Exception:  # a docstring may hold anything
        return _one_line(first_paragraph), {}
    descriptions = {}
    for parameter in parsed.params:
        if parameter.description:
            descriptions[parameter.arg_name] = _one_line(parameter.description)
    # The parser's short description is the first line, and where the paragraph goes on
    # after it, the rest begins its long description.
    summary = parsed.short_description or ""
    if not parsed.blank_after_short_description:
        rest = _first_paragraph(parsed.long_description or "")
        summary = f"{summary} {rest}"
    return _one_line(summary or first_paragraph), descriptions


def _first_paragraph(text: str) -> str:
    return text.partition("\n\n")[0]


def _one_line(text: str) -> str:
    return " ".join(text.split())
