"""What the policy said first: a gold that it named as its own, not as one of many.

A policy that lists candidates must learn nothing: a gold counts as said only in a form
of which the policy's words hold few, and all that have this form are counted alike,
over all that it wrote. So it is told of no more than `MAX_NAMED` candidates of a form.
"""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction

from aipo_env.verifiers.math_extract import TAG, boxes, formulas
from aipo_env.verifiers.numerals import number_words, values_in
from aipo_env.verifiers.plain_text import folded

MAX_NAMED = 3
"""A policy that names more answers of one form has listed candidates."""
MAX_CHARS = 200
"""A longer part of the policy's words is no answer."""
MORE_CHARS = 20
"""A line that is longer than twice the gold and this is a sentence, and no answer."""

_CUE = re.compile(
    r"""
    (?i:
      \b(?: answer | result | solution | outcome | claim | guess )\b
      [^.\n:=?]{0,30}?
      (?: : | = | \bis\b | \bare\b | \bequals\b | \bwould\ be\b )
      [ :=*_`"']{0,8}
    )
    """,
    re.VERBOSE,
)
"""What a policy states its answer after: `my answer is`."""
_LOOSE_CUE = re.compile(
    r"""
    (?i:
      \b(?:
          (?: it | this | that | he | she | they | process | value )
          (?: \ is | \ was | 's )
        | (?: is | was ) \ (?: it | this | that | the\ answer )
        | (?: got | get | have | obtain(?:ed)? | believe | think )
          (?: \ (?: it | that | the\ answer ) )? (?: \ (?: is | was ) )?
        | called | named
      ) \b
      [ :=*_`"']{0,8}
    )
    """,
    re.VERBOSE,
)
"""The same, where it need not be an answer: `I got`, `is it`."""
_SENTENCE_END = re.compile(r"[.?!;](?=\s|$|[\"'*)<])|[\n<>]")
_MORE = re.compile(r"\s*(?:[-*•·–—|]|\(?\w{1,2}[.)])\s")
"""How the next entry of a list begins."""
_REASON = re.compile(
    r"(?i),?\s(?:because|since|so|which|for|as|right|correct|by|after|then|in|is)\b"
)
_MARKUP = re.compile(r"</?\w{1,20}>|\"\w{1,20}\" ?: ?")
"""Tags and the names of fields, which are no line's content."""
_LINE_END = re.compile(r"[\n<>\t\"]|\\n")
_EDGES = " \t*_`\"'$,;:.?!"
_BRACES = "{}"
_DRESS = re.compile(r"[\s$*_`\"']|\\(?:left|right)(?![a-zA-Z])|\\[,;! ]")
_CAPITAL = r"[A-ZÀ-Þ][\w'-]*"
_CAPITALS = re.compile(rf"{_CAPITAL}(?: (?:(?:of|the|de|la|von|van|der) )?{_CAPITAL})*")
"""Neighbouring words with capitals, `Marie Curie`, `Treaty of Westphalia`."""
_OPENING = re.compile(r"(?:Is|Was|Are|Did|Does|So|Then|The|But|And|Maybe|Perhaps) ")
"""What a sentence begins with, and no name."""
_MARKED = re.compile(r"\b(?:0x[0-9a-f]{1,60}|0o[0-7]{1,60}|0b[01]{1,200})\b")
"""A numeral with the mark of its base."""
_MARKS = {"0x": 16, "0o": 8, "0b": 2}
_SPELLED = re.compile(r"(?<![0-9])[0-9](?:[ \-_'’·.|,]{1,3}[0-9])+(?![0-9])")
"""Digits one by one."""
_NUMBER_WORD = re.compile(
    r"""
    (?: \b(?: zero | oh | nought | one | two | three | four | five | six | seven | eight
            | nine | ten | eleven | twelve | thirteen | fourteen | fifteen | sixteen
            | seventeen | eighteen | nineteen | twenty | thirty | forty | fifty | sixty
            | seventy | eighty | ninety | hundred | thousand | million | billion
            | trillion | and | point | over | a )\b [\s,-]{0,3} )+
    """,
    re.VERBOSE | re.IGNORECASE,
)
MIN_NUMBER_WORDS = 3


def names_number(said: str, value: Fraction, forms: tuple[str, ...]) -> bool:
    """Return whether the policy named a number as its own.

    Args:
        said: The policy's words, plain.
        value: The number, without its sign.
        forms: How it is spelled in words.
    """
    size = len(str(value)) - 1
    alike = {other for other in values_in(said) if len(str(other)) >= size}
    if value in alike and len(alike) <= MAX_NAMED:
        return True
    for stated in (_answers(said, _CUE), _answers(said, _LOOSE_CUE)):
        if len(stated) <= MAX_NAMED and {value} in map(values_in, stated):
            return True
    digits = str(value)
    spelled = [re.sub("[^0-9]", "", run[0]) for run in _SPELLED.finditer(said)]
    if spelled == [digits]:
        return True
    marked = {int(one, _MARKS[one[:2]]) for one in _MARKED.findall(said.lower())}
    if marked == {value}:
        return True
    worded = [number_words(run[0]).strip() for run in _NUMBER_WORD.finditer(said)]
    long = [words for words in worded if len(words.split()) >= MIN_NUMBER_WORDS]
    return len(long) == 1 and long[0] in forms


def names_text(said: str, gold: str, is_words: bool) -> bool:
    """Return whether the policy named a text or a formula as its own.

    Args:
        said: The policy's words, plain.
        gold: What it may have named.
        is_words: Small and capital letters do not differ in it.
    """
    wanted = _key(gold, is_words)
    num_chars = 2 * len(gold) + MORE_CHARS
    forms: tuple[Callable[[], set[str]], ...] = (
        lambda: _answers(said, _CUE),
        lambda: _answers(said, _LOOSE_CUE),
        lambda: _short_lines(said, num_chars),
        lambda: {content for _, _, content in formulas(said)},
        lambda: {_OPENING.sub("", run, count=1) for run in _CAPITALS.findall(said)},
    )
    for form in forms:
        named = {_key(one, is_words) for one in form()} - {""}
        if wanted in named and len(named) <= MAX_NAMED:
            return True
    return False


def _key(text: str, is_words: bool) -> str:
    bare = _DRESS.sub("", text.strip(_EDGES + _BRACES))
    return folded(bare)[0] if is_words else bare


def _answers(said: str, cue: re.Pattern[str]) -> set[str]:
    """Return what the policy states as its answer: in boxes, tags, or behind a cue."""
    found = set(_behind(cue, said))
    if cue is _CUE:
        found.update(content for _, _, content in boxes(said))
        found.update(TAG.findall(said))
    return {answer.strip(_EDGES) for answer in found} - {""}


def _behind(cue: re.Pattern[str], said: str) -> Iterator[str]:
    for found in cue.finditer(said):
        rest = said[found.end() : found.end() + MAX_CHARS]
        end = _SENTENCE_END.search(rest)
        if end is None and len(rest) == MAX_CHARS:
            continue
        sentence = rest[: end.start()] if end else rest
        if end and _MORE.match(rest, end.end()):
            sentence += rest[end.start() :]  # a list, which is no answer
        yield _REASON.split(sentence, maxsplit=1)[0]


def _short_lines(said: str, num_chars: int) -> set[str]:
    """Return the lines, contents of tags and quoted texts that are no sentences."""
    bare = _MARKUP.sub("\n", said)
    lines = (line.strip(_EDGES + _BRACES) for line in _LINE_END.split(bare))
    return {line for line in lines if line and len(line) <= num_chars}
