"""What the policy said first: a gold that it named as its own, not as one of many.

A policy that lists candidates must learn nothing: a gold counts as said only in a form
of which the policy's words hold few, and all that have this form are counted alike,
over all that it wrote. So it is told of no more than `MAX_NAMED` candidates of a form.
"""

import re
from collections.abc import Iterator
from fractions import Fraction

from aipo_env.verifiers.extract import TAG, boxes, formulas
from aipo_env.verifiers.leaks.numerals import number_words, values_in
from aipo_env.verifiers.leaks.plain_text import folded

MAX_NAMED = 3
"""A policy that names more answers of one form has listed candidates."""
MAX_NAMED_CHARS = 200
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
          (?: \ is | \ was | 's )                                  # it's
        | (?: is | was ) \ (?: it | this | that | the\ answer )    # is it
        | (?: got | get | have | obtain(?:ed)? | believe | think )
          (?: \ (?: it | that | the\ answer ) )?
          (?: \ (?: is | was ) )?                                  # I think it is
        | called | named
      ) \b
      [ :=*_`"']{0,8}
    )
    """,
    re.VERBOSE,
)
"""The same, where it need not be an answer: `I got`, `is it`."""
_SENTENCE_END = re.compile(
    r"""
      [.?!;] (?= \s | $ | ["'*)<] )   # "12. Is", "12.)"; not "1.5"
    | [\n<>]                          # a line's end, a tag
    """,
    re.VERBOSE,
)
_NEXT_ENTRY = re.compile(
    r"""
    \s*
    (?: [-*•·–—|]           # "- 12"
      | \(? \w{1,2} [.)]    # "2. 12", "(b) 12"
    )
    \s
    """,
    re.VERBOSE,
)
"""How the next entry of a list begins."""
_REASON = re.compile(
    r"""
    ,? \s
    (?: because | since | so | which | for | as | right | correct | by | after | then
      | in | is ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What goes on behind an answer in its sentence: `, because`, ` is right`."""
_MARKUP = re.compile(
    r"""
      </? \w{1,20} >           # <answer>
    | " \w{1,20} " \ ? : \ ?   # "answer": of a JSON object
    """,
    re.VERBOSE,
)
"""Tags and the names of fields, which are no line's content."""
_LINE_END = re.compile(r"[\n<>\t\"]|\\n")
_EDGES = " \t*_`\"'$,;:.?!"
_BRACES = "{}"
_DRESS = re.compile(
    r"""
      [\s$*_`"']                        # blanks, dollar signs, marks of Markdown
    | \\(?: left | right ) (?![a-zA-Z])   # the size of a bracket; not \leftarrow
    | \\[,;!\ ]                         # a blank of LaTeX's
    """,
    re.VERBOSE,
)
"""What makes two spellings of one answer differ, and means nothing."""
_CAPITAL = r"[A-ZÀ-Þ][\w'-]*"
_CAPITALS = re.compile(rf"{_CAPITAL}(?: (?:(?:of|the|de|la|von|van|der) )?{_CAPITAL})*")
"""Neighbouring words with capitals, `Marie Curie`, `Treaty of Westphalia`."""
_OPENING = re.compile(r"(?:Is|Was|Are|Did|Does|So|Then|The|But|And|Maybe|Perhaps) ")
"""What a sentence begins with, and no name."""
_MARKED = re.compile(r"\b(?:0x[0-9a-f]{1,60}|0o[0-7]{1,60}|0b[01]{1,200})\b")
"""A numeral with the mark of its base."""
_BASE_OF = {"0x": 16, "0o": 8, "0b": 2}
_SPELLED = re.compile(r"(?<![0-9])[0-9](?:[ \-_'’·.|,]{1,3}[0-9])+(?![0-9])")
"""Digits one by one."""
_NO_DIGIT = re.compile(r"[^0-9]")
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
"""Fewer words of a number stand in any sentence: "one and", "a hundred"."""


# Numbers


def names_number(said: str, value: Fraction, forms: tuple[str, ...]) -> bool:
    """Return whether the policy named a number as its own.

    Args:
        said: The policy's words, plain.
        value: The number, without its sign.
        forms: How it is spelled in words.
    """
    return (
        _is_one_of_few(said, value)
        or _is_stated(said, value)
        or _is_only_spelled(said, value)
        or _is_only_marked(said, value)
        or _is_only_worded(said, forms)
    )


def _is_one_of_few(said: str, value: Fraction) -> bool:
    """Return whether a number stands in the policy's words beside few of its length."""
    # Shorter numbers are those of the working, and could not be meant for this one.
    min_chars = len(str(value)) - 1
    rivals = {number for number in values_in(said) if len(str(number)) >= min_chars}
    return value in rivals and len(rivals) <= MAX_NAMED


def _is_stated(said: str, value: Fraction) -> bool:
    """Return whether one of few answers that the policy states is this number alone."""
    for cue in (_CUE, _LOOSE_CUE):
        answers = _answers(said, cue)
        if len(answers) > MAX_NAMED:
            continue
        if any(values_in(answer) == {value} for answer in answers):
            return True
    return False


def _is_only_spelled(said: str, value: Fraction) -> bool:
    """Return whether the only digits that stand one by one are those of a number."""
    rows = list(_SPELLED.finditer(said))
    if len(rows) != 1:
        return False
    return _NO_DIGIT.sub("", rows[0][0]) == str(value)


def _is_only_marked(said: str, value: Fraction) -> bool:
    """Return whether the only number that is marked with a base is this one."""
    values: set[int] = set()
    for numeral in _MARKED.findall(said.lower()):
        base = _BASE_OF[numeral[:2]]
        values.add(int(numeral, base))
    return values == {value}


def _is_only_worded(said: str, forms: tuple[str, ...]) -> bool:
    """Return whether the only longer number in words is one of these."""
    rows = [row[0] for row in _NUMBER_WORD.finditer(said)]
    numbers = [number_words(row).strip() for row in rows]
    long_numbers = [words for words in numbers if _is_long(words)]
    return len(long_numbers) == 1 and long_numbers[0] in forms


def _is_long(words: str) -> bool:
    return len(words.split()) >= MIN_NUMBER_WORDS


# Texts and formulas


def names_text(said: str, gold: str, is_words: bool) -> bool:
    """Return whether the policy named a text or a formula as its own.

    Args:
        said: The policy's words, plain.
        gold: What it may have named.
        is_words: Small and capital letters do not differ in it.
    """
    gold_key = _key(gold, is_words)
    max_chars = 2 * len(gold) + MORE_CHARS
    for texts in _texts_by_form(said, max_chars):
        keys = {_key(text, is_words) for text in texts}
        keys.discard("")
        if gold_key in keys and len(keys) <= MAX_NAMED:
            return True
    return False


def _texts_by_form(said: str, max_chars: int) -> Iterator[set[str]]:
    """Yield what the policy may have named, each time all that has one form."""
    yield _answers(said, _CUE)
    yield _answers(said, _LOOSE_CUE)
    yield _short_lines(said, max_chars)
    yield {content for _, _, content in formulas(said)}
    yield {_OPENING.sub("", name, count=1) for name in _CAPITALS.findall(said)}


def _key(text: str, is_words: bool) -> str:
    """Return what two spellings of one answer have in common."""
    bare = _DRESS.sub("", text.strip(_EDGES + _BRACES))
    if is_words:
        return folded(bare)[0]
    return bare


def _answers(said: str, cue: re.Pattern[str]) -> set[str]:
    """Return what the policy states as its answer: in boxes, tags, or behind a cue."""
    answers = set(_behind(cue, said))
    if cue is _CUE:
        answers.update(content for _, _, content in boxes(said))
        answers.update(TAG.findall(said))
    bare_answers = {answer.strip(_EDGES) for answer in answers}
    bare_answers.discard("")
    return bare_answers


def _behind(cue: re.Pattern[str], said: str) -> Iterator[str]:
    """Yield what stands behind each cue, up to its sentence's end or its reason."""
    for match in cue.finditer(said):
        rest = said[match.end() : match.end() + MAX_NAMED_CHARS]
        end = _SENTENCE_END.search(rest)
        if end is None and len(rest) == MAX_NAMED_CHARS:
            continue
        sentence = rest[: end.start()] if end else rest
        if end and _NEXT_ENTRY.match(rest, end.end()):
            # A list, which is no answer: with its other entries it equals no gold.
            sentence += rest[end.start() :]
        yield _REASON.split(sentence, maxsplit=1)[0]


def _short_lines(said: str, max_chars: int) -> set[str]:
    """Return the lines, contents of tags and quoted texts that are no sentences."""
    bare = _MARKUP.sub("\n", said)
    lines = {line.strip(_EDGES + _BRACES) for line in _LINE_END.split(bare)}
    return {line for line in lines if line and len(line) <= max_chars}
