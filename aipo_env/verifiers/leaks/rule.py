"""The leak rule: whether an agent's reply gives the gold answer of its task away.

A reply does when the answer that it states is the gold in any form, or when a gold that
nobody could guess stands in it, in digits, in words, in another base or encoded; for a
code task, when it holds a whole program. Not when the policy said it first
(`candidates.py`). Riddles ("one less than a million") are not found.

A gold with few candidates (`is_short`) is looked for only where a reply states its
answer, and is for measuring: to withhold a reply would tell the policy that it asked
the right question.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache

from aipo_env.records import Task
from aipo_env.verifiers.choice import LETTERS, read_choice
from aipo_env.verifiers.extract import TAG, boxes, formulas, one_blank
from aipo_env.verifiers.leaks.candidates import names_number, names_text
from aipo_env.verifiers.leaks.encodings import decoded
from aipo_env.verifiers.leaks.numerals import (
    MAX_DIGITS,
    MIN_BASE_DIGITS,
    MIN_NAMED_DIGITS,
    forms_of,
    number_words,
    numerals_of,
    readings_in,
    spells_out,
    stands_backwards,
    undressed,
    values_in,
)
from aipo_env.verifiers.leaks.phrases import is_said, surname
from aipo_env.verifiers.leaks.plain_text import folded, plain, plain_length
from aipo_env.verifiers.leaks.programs import may_hold_program
from aipo_env.verifiers.leaks.spoken import as_formulas
from aipo_env.verifiers.math.grade import Undecided, without_algebra
from aipo_env.verifiers.math.text import MAX_CHARS, clean, number
from aipo_env.verifiers.workers import shared_pool

LONG_ANSWER = 6
"""Characters, without blanks and sizes, from which a gold may have many candidates."""
LONG_SIGNS = 4
"""Digits, letters, operators and commands that it has then."""
LONG_INTEGER = 6
"""Digits of a whole number, too many to try."""
LONG_RATIO = 4
"""Digits of both parts of a fraction together, too many to try."""
_FEW_WORDS = (
    "always never sometimes positive negative infinite infinity increasing decreasing "
    "constant convergent divergent converges diverges rational irrational parallel "
    "perpendicular clockwise counterclockwise isosceles scalene equilateral monday "
    "tuesday wednesday thursday friday saturday sunday january february march april "
    "may june july august september october november december"
)
FEW_WORDS = frozenset(_FEW_WORDS.split())
"""Answers by themselves that come from a handful."""
MAX_INLINE_CHARS = 300
"""What is longer, all texts together and normalised, goes to a worker process."""
MAX_INLINE_GOLD = 32
"""A longer gold or statement goes there, too: to compare two formulas takes longest."""
MAX_STATEMENTS = 24
"""So many of a reply's statements are compared with the gold, the last ones."""
MAX_SPANS = 8
"""So many of the formulas that stand in prose."""
MAX_STATEMENT_CHARS = 200
"""A longer statement is no answer, unless the gold is as long."""
MAX_BARE_CHARS = 60
"""A reply that is longer than the gold by more characters is more than an answer."""
MIN_ENTRIES = 4
"""Numbers of a matrix that stand nowhere by chance in this order."""

_MAX_MARKED = 4
"""So many of a reply's boxes and answer tags are its answers, the last ones."""
_DENIED_CHARS = 20
"""How far before a cue a denial of it may stand: `not the`."""
_MIN_OPTION_CHARS = 4
"""A shorter option of a multiple choice stands in any text."""
_MIN_LETTERS = 4
"""An answer of fewer letters is no word: `x`, `abc`."""
_WORD_SHARE = 0.8
"""Share of letters in what is words; the rest are blanks and marks between them."""
_MIN_TURNED_CHARS = 8
"""A shorter word may be another one backwards."""
_MAX_STRANGE_WORDS = 2
"""Words in a formula that the gold lacks; with more it is prose."""

_SIZES = re.compile(
    r"""
      \\(?: left | right ) (?![a-zA-Z])   # the size of a bracket; not \leftarrow
    | \\[,;!\ ]                           # a blank of LaTeX's
    | [$\s]
    """,
    re.VERBOSE,
)
_SIGNS = re.compile(r"\\[a-zA-Z]+|\w|[-+*/^=<>!,]")
"""Commands, letters, digits and operators: `\\frac`, `x`, `1`, `+`."""
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LETTERS = re.compile(r"[a-z]+")
_STRUCTURE = ("\\left", "\\right", "\\text", "\\mathrm", "\\mathbf", "\\textbf")
_JOINTS = ("+", "-", "*", "\\cdot", "\\times")
_CONSTANTS = frozenset("eiCP")
"""Letters that may stand in a number: of `e^{i\\pi}`, `C(8,4)`."""
_SETS = ("\\in", "\\cup", "\\{", "\\infty")
_CUE = re.compile(
    r"""
    (?i:
      \b(?: answer | result | solution | outcome )\b [^.\n:=]{0,30}?
      (?: : | = | ≈ | \bis\b | \bare\b | \bequals\b | \bwould\ be\b | \bshould\ be\b
        | \bcomes\ to\b | \*\* | \s(?=[-+$\\(\d]) )
    | \b(?: choose | pick | select | go\ with | option | choice )\b
    | 答案[是为:\uff1a]{0,2}
    )
    [\s:=*_`"']*
    """,
    re.VERBOSE,
)
"""What a reply states its answer after: `the answer is`, `答案是`."""
_LOOSE_CUE = re.compile(
    r"""
    (?i:
      = | ≈ | → | : |
      \b(?: is | are | be | was | were | get | gets | got | gives? | giving | obtain
          | yields? | yielding | equals? | equal\ to | becomes? | to | as | have | has
          | with | write | find | leaves? | makes? | reads? | simplifies\ to
          | reach(?:es)? | produces? | returns? | use | into | called | named | by
          | namely )\b
      | \bi\.e\.
    )
    [\s:=*_`"']*
    """,
    re.VERBOSE,
)
"""What may stand before any formula; only for golds that stand nowhere by chance."""
_CUE_BEHIND = re.compile(
    r"""
    (?i:
      ,? \s (?: is | are | was | would\ be | must\ be | it\ is | should\ be )
      (?: \s (?: therefore | thus | then | indeed ) )? \s
      (?: the | your | what | it \b | correct | right )
    )
    """,
    re.VERBOSE,
)
"""What a reply states its answer before: `… is the answer`, `… is what remains`."""
_SENTENCE_END = re.compile(
    r"""
      (?: [.?;]              # "142. So"
        | (?<![\d)}]) ! )    # "Good!"; not the factorial of "5! is"
      (?= \s | $ | ["'*)] )
    | \n
    """,
    re.VERBOSE,
)
_FILLER = re.compile(
    r"""
    (?:
      (?: so | thus | hence | therefore | then | finally | and | well | ok | okay
        | now )
      \b [,:]? \s*
    )+
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What a statement may begin with and does not state: `So, therefore`."""
_CLAUSE_END = re.compile(
    r"""
    [,;:]\s
    | \s(?: because | since | so | which | and | but | when | where | for | if | as | by
          | after | then | in | with | here | there | follows | is | remains
          | results )\b
    | \s[-–—(]
    """,
    re.VERBOSE,
)
"""Where a clause may end: `, `, ` because`."""
_ASKED = re.compile(r"(?<![\w\\])[\d(\\][\w\\{}()^*/+\-×·÷=.! ]{2,120}[\w)}!]")
"""What may be a formula in a problem that does not mark it."""
MAX_ASKED = 6
"""So many formulas of a problem are compared with a statement, of either kind."""
_PROSE_WORD = re.compile(
    r"""
    (?<![A-Za-z\\])
    (?! (?: arc )? (?: sin | cos | tan | cot | sec | csc ) h? \b
      | (?: ln | log | exp | sqrt | pi ) \b )
    [A-Za-z]{2,} (?:['’][a-z]+)?
    | [;?!](?=\s|$) | \.(?=\s|$) | \n | \s[-–—]\s(?=[A-Za-z]{2})
    """,
    re.VERBOSE,
)
"""What stands around the formulas in a sentence: words, and where it ends."""
_OPERATOR = re.compile(
    r"""
      [-+*/^=<>√−·×²]
    | \\[a-zA-Z]        # a command: \frac
    | \d [A-Za-z(]      # a factor before what it multiplies: 2x, 3(
    | \)\(              # (x+1)(x-1)
    """,
    re.VERBOSE,
)
"""What makes signs a formula."""
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
"""A letter that stands alone."""
_ARTICLE = re.compile(r"^(?:a|A|I)\s")
"""What stands before a formula in prose and is no variable of it."""
_DENIED = re.compile(r"(?i)(?:\bnot|n't|\bnever|\bcannot be)\s*$")
"""What before a cue takes it back: `not`, `isn't`."""
_NEGATION = re.compile(r"(?i)not\b|never\b")
"""What behind a cue does."""
_DENIAL = re.compile(r"\s(?:is|are|was) (?:not|never)\b|\s(?:is|are)n't")
"""What behind a clause does: `12 is not the answer`."""
_CLAUSE_BEGIN = re.compile(r"[,:]\s")
_TOKEN = re.compile(r"[0-9a-z]+")
_BASE = re.compile(r"(?i)\bbase\b|\bhex|\boctal")
"""What a text says that has a number of another base."""
_BASE_MARK = re.compile(r"\b0[xbo]")
_NUMBER = re.compile(
    r"""
      (?<![\w.]) [-−]? \s? \d{1,9} (?: \.\d{1,9} )? (?![\w.]\d)   # 3, - 1.5
    | [-−]\d{1,9}                                                 # the -2 of 3-2
    """,
    re.VERBOSE,
)
_SPELLED_GAP = r"[\s$*_.,\-–'\"]{0,3}"
"""What may stand between the letters of a word: "W-e-s-t"."""
_FORMULA_GAP = r"[\s$]{0,3}"
_SPACING = re.compile(r"[\s$*_.\-–,'\"]")
"""What is left out to see at once whether a text can hold an answer."""
_NO_WORD = re.compile(r"\W")
_DIGIT = re.compile(r"\d")
_FORMULA_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")
_LONG_WORD = re.compile(r"[a-zA-Z]{3,}")
_EDGES = " \t\n*_`\"'$,;:."
Compare = Callable[[str, str], bool]
"""Tells whether a statement is a gold: `same(gold, statement)`."""


@dataclass(frozen=True)
class Gold:
    """What a reply must not give away, and what the policy knows of it."""

    answer: str
    kind: str = "math"
    prompt: str = ""
    choices: tuple[str, ...] = ()
    entry: str = ""

    @classmethod
    def of(cls, task: Task) -> "Gold":
        """Return the gold of a task."""
        return cls(
            answer=task.answer,
            kind="code" if task.tests else task.kind,
            prompt=task.prompt,
            choices=task.choices,
            entry=task.tests.entry if task.tests else "",
        )


def is_short(gold: Gold) -> bool:
    """Return whether to withhold a reply would tell a gold: it has few candidates.

    Args:
        gold: A gold answer; that of a code task never is.
    """
    if gold.kind == "code":
        return False
    return bool(gold.choices) or _has_few_candidates(gold.answer)


@lru_cache(4096)
def _has_few_candidates(answer: str) -> bool:
    if len(answer) > MAX_CHARS:
        return False
    if len(_SIZES.sub("", answer)) < LONG_ANSWER:
        return True
    value = _value(answer)
    if value is not None:
        return _is_simple(value)
    words = _LETTERS.findall(_COMMAND.sub(" ", answer.casefold()))
    if len(words) == 1 and words[0] in FEW_WORDS:
        return True
    signs = [sign for sign in _SIGNS.findall(answer) if sign not in _STRUCTURE]
    # A short word is one of a dictionary's, where a formula of as many signs is rare.
    is_word = "".join(signs).isalpha()
    return len(signs) < (LONG_ANSWER if is_word else LONG_SIGNS)


def _is_simple(value: Fraction) -> bool:
    """Return whether a number is one of few that somebody would try."""
    if value.denominator == 1:
        return len(str(value)) < LONG_INTEGER
    return len(f"{value.numerator}{value.denominator}") < LONG_RATIO


async def gives_away(gold: Gold, reply: str, said: str) -> bool:
    """Return whether a reply gives the gold away; yes, where there is no time to tell.

    Args:
        gold: What must not be given away.
        reply: The agent's words.
        said: The policy's own words that let a reply repeat the gold.
    """
    texts = (reply, said, gold.prompt, *gold.choices)
    if len(gold.answer) <= MAX_INLINE_GOLD and _are_brief(texts):
        try:
            return leaks(gold, reply, said, _same_without_algebra, _unparsed)
        except Undecided:
            pass  # a worker process knows algebra, and may parse
        except Exception:
            return True
    request = json.dumps([asdict(gold), reply, said], ensure_ascii=False)
    pool = shared_pool(os.getpid())
    outcome = await asyncio.wrap_future(pool.submit("leaks", request))
    return outcome.status != "answered" or bool(json.loads(outcome.text))


def _are_brief(texts: tuple[str, ...]) -> bool:
    """Return whether texts may be read without holding anybody up, once normalised."""
    # Normalising is linear, but of a long text it takes long, too.
    if sum(map(len, texts)) > MAX_INLINE_CHARS:
        return False
    return sum(map(plain_length, texts)) <= MAX_INLINE_CHARS


def leaks(
    gold: Gold,
    reply: str,
    said: str,
    same: Compare,
    holds_program: Callable[[str, str, str], bool],
) -> bool:
    """Return whether a reply gives the gold away.

    Args:
        gold: What must not be given away.
        reply: The agent's words.
        said: The policy's own words that let a reply repeat the gold.
        same: Whether a statement is the gold of mathematics: `same(gold, statement)`.
        holds_program: Whether a text holds a whole program that nobody said before:
            `holds_program(text, entry, said)`.

    Raises:
        Undecided: One of these did.
    """
    if gold.kind == "code":
        return may_hold_program(reply) and holds_program(reply, gold.entry, said)
    text = one_blank(plain(reply))
    if gold.choices:
        return _names_choice(gold, text, said)
    if not gold.answer.strip():
        return False
    if not _reveals(gold, text, same):
        return False
    return not _was_said(gold, one_blank(plain(said)))


def _reveals(gold: Gold, text: str, same: Compare) -> bool:
    """Return whether a gold stands in a text, plain or encoded, or is stated by it."""
    if _stands_in(gold, text) or _states(gold, text, same):
        return True
    # Some encoding of any text holds a short gold.
    return not is_short(gold) and _stands_in(gold, decoded(text))


# Programs


def _unparsed(text: str, entry: str, said: str) -> bool:
    """Tell nothing: a program is parsed in a worker process only."""
    raise Undecided


# Multiple choice


def _names_choice(gold: Gold, text: str, said: str) -> bool:
    """Return whether a reply settles on the gold's option, by letter or by text."""
    own_letter, _ = read_choice(said, gold.choices)
    if own_letter == gold.answer:
        return False
    for statement in (text, *_statements(text, _CUE)):
        letter, _ = read_choice(statement, gold.choices)
        if letter == gold.answer:
            return True
    return _options_in(text, gold.choices) == {gold.answer}


def _options_in(text: str, choices: tuple[str, ...]) -> set[str]:
    """Return the letters of the options whose text stands in a text."""
    squashed = _squashed(text)
    letters: set[str] = set()
    for letter, choice in zip(LETTERS, choices, strict=False):
        option = _squashed(choice)
        if len(option) >= _MIN_OPTION_CHARS and option in squashed:
            letters.add(letter)
    return letters


def _squashed(text: str) -> str:
    """Return the letters and digits of a text, all small."""
    return _NO_WORD.sub("", text.casefold())


# What stands in a text


@lru_cache(1024)
def _value(answer: str) -> Fraction | None:
    """Return the exact value of a plain number without its sign, or None."""
    if len(answer) > MAX_CHARS:
        return None
    value = number(clean(answer))
    # A longer number has neither words nor another base's numeral: it is text.
    if value is None or abs(value.numerator) >= 10**MAX_DIGITS:
        return None
    return abs(value)


def _stands_in(gold: Gold, text: str) -> bool:
    """Return whether a gold that stands nowhere by chance stands in a text."""
    if is_short(gold) or _holds(gold.answer, gold.prompt):
        return False
    return _is_in(gold, text) or _is_phrase_in(gold, text)


def _is_in(gold: Gold, text: str) -> bool:
    """Return whether a gold stands in a text, in whatever form."""
    value = _value(gold.answer)
    if value is None:
        return _holds(gold.answer, text) or _lists_entries(gold, text)
    return (
        _is_in_digits(value, text)
        or _is_in_words(value, text)
        or _is_in_a_base(value, text)
    )


def _is_in_digits(value: Fraction, text: str) -> bool:
    """Return whether a number stands in a text as digits, dressed or not."""
    bare = undressed(text)
    if value in values_in(text) or value in readings_in(text):
        return True
    if bare != text and value in values_in(bare):
        return True
    digits = str(value)
    is_whole = value.denominator == 1
    if is_whole and (spells_out(text, digits) or spells_out(bare, digits)):
        return True
    return stands_backwards(text, digits)


def _is_in_words(value: Fraction, text: str) -> bool:
    words = number_words(text)  # apart by blanks, with one at each end
    return any(f" {form} " in words for form in forms_of(value))


def _is_in_a_base(value: Fraction, text: str) -> bool:
    """Return whether a number stands in a text in another base than ten."""
    bare = _BASE_MARK.sub(" ", text.lower())
    tokens = set(_TOKEN.findall(bare))
    least = MIN_NAMED_DIGITS if _BASE.search(text) else MIN_BASE_DIGITS
    return not tokens.isdisjoint(numerals_of(value, least))


def _is_phrase_in(gold: Gold, text: str) -> bool:
    """Return whether a text says a gold of words in another order, or in more words."""
    is_text = _value(gold.answer) is None and _is_words(gold.answer)
    return is_text and is_said(gold.answer, text, gold.prompt)


def _lists_entries(gold: Gold, text: str) -> bool:
    """Return whether a text has the entries of a matrix one after another."""
    if "\\begin" not in gold.answer:
        return False
    entries = _numbers(gold.answer)
    if len(entries) < MIN_ENTRIES:
        return False
    if _holds_row(entries, _numbers(gold.prompt)):
        return False
    return _holds_row(entries, _numbers(text))


def _numbers(text: str) -> list[str]:
    """Return the numbers of a text, all without blanks and with ASCII signs."""
    numerals = _NUMBER.findall(text)
    return [numeral.replace("−", "-").replace(" ", "") for numeral in numerals]


def _holds_row(entries: list[str], numbers: list[str]) -> bool:
    # Blanks around both: "1 2" is not in "1 23".
    row = f" {' '.join(entries)} "
    all_numbers = f" {' '.join(numbers)} "
    return row in all_numbers


def _is_words(answer: str) -> bool:
    """Return whether an answer is words: small and capital letters do not differ."""
    num_letters = sum(map(str.isalpha, answer))
    is_mostly_letters = num_letters >= _WORD_SHARE * len(answer)
    return "\\" not in answer and is_mostly_letters and num_letters >= _MIN_LETTERS


@lru_cache(1024)
def _holds(answer: str, text: str) -> bool:
    """Return whether an answer stands in a text, however spaced, as a whole."""
    bare = _SIZES.sub("", answer).removesuffix(".")
    if not _is_words(bare):
        return _holds_as_is(bare, text)
    names = folded(bare)
    spellings = folded(text)
    return any(_holds_as_is(name, spelling) for name in names for spelling in spellings)


def _holds_as_is(bare: str, text: str) -> bool:
    """Return whether signs stand in a text in this order, or a word's backwards."""
    squeezed = _SIZES.sub("", text)
    turned = bare[::-1]
    may_turn = _is_words(bare) and len(bare) >= _MIN_TURNED_CHARS and turned != bare
    if may_turn and turned in squeezed:
        return True
    # Most texts do not hold it, and to build the pattern costs more than the rest.
    letters = _SPACING.sub("", bare)
    if not letters or letters not in _SPACING.sub("", squeezed):
        return False
    if len(bare) > MAX_STATEMENT_CHARS:
        return bare in squeezed
    gap = _SPELLED_GAP if bare.isalpha() else _FORMULA_GAP
    spaced = gap.join(map(re.escape, bare))
    # As a whole: 12 is not in 123, in 12.5 or in 12^2.
    return re.search(rf"(?<![\w.]){spaced}(?!\w|\.\d|\s?\^)", text) is not None


# What a text states


def _states(gold: Gold, text: str, same: Compare) -> bool:
    """Return whether a statement of a text is the gold."""
    value = _value(gold.answer)
    forms = forms_of(value) if value is not None else ()
    max_chars = max(MAX_STATEMENT_CHARS, len(gold.answer))
    for statement in dict.fromkeys(map(_bared, _statements_of(gold, text))):
        if not statement or len(statement) > max_chars:
            continue
        if len(statement) >= LONG_ANSWER and _holds(statement, gold.prompt):
            continue  # of the problem, and so no answer
        if number_words(statement).strip() in forms:
            return True
        if _is_gold(gold, statement, same):
            return True
    return False


def _is_gold(gold: Gold, statement: str, same: Compare) -> bool:
    """Return whether a statement equals the gold, and is not what the problem says."""
    if gold.kind != "math":
        return _same_text(gold.answer, statement)
    if not _may_be_same(gold.answer, statement):
        return False
    # A short gold is looked for to measure, and for that no algebra is needed.
    compare = _same_at_sight if is_short(gold) else same
    if not compare(gold.answer, statement):
        return False
    return not _restates(gold, statement, same)


def _statements_of(gold: Gold, text: str) -> Iterator[str]:
    """Yield what may be a statement of a gold's kind in a text."""
    yield from _statements(text, _CUE)
    if len(text) <= len(gold.answer) + MAX_BARE_CHARS:
        yield text
    if is_short(gold):
        return
    is_math = gold.kind == "math"
    if not is_math or _is_words(gold.answer):
        yield from _surnames(gold, text)
    if not is_math:
        return
    spoken_text = as_formulas(text)
    for version in dict.fromkeys((text, spoken_text)):
        yield from _statements(version, _LOOSE_CUE)
        last_formulas = formulas(version)[-MAX_STATEMENTS:]
        yield from (content for _, _, content in last_formulas)
        yield from _statements_before(version)
    yield from _spans(gold, spoken_text)


def _statements_before(text: str) -> Iterator[str]:
    """Yield what stands before "is the answer" in its sentence, and in its clause."""
    cues = list(_CUE_BEHIND.finditer(text))
    for cue in cues[-MAX_SPANS:]:
        start = max(0, cue.start() - MAX_STATEMENT_CHARS)
        before = text[start : cue.start()]
        sentence = _SENTENCE_END.split(before)[-1]
        yield sentence
        yield _CLAUSE_BEGIN.split(sentence)[-1]


def _spans(gold: Gold, text: str) -> Iterator[str]:
    """Yield the formulas that stand in prose and have the gold's variables."""
    if _value(gold.answer) is not None or _is_words(gold.answer):
        return
    variables = set(_VARIABLE.findall(gold.answer))
    spans: list[str] = []
    for part in dict.fromkeys(map(_bared, _PROSE_WORD.split(text))):
        span = _ARTICLE.sub("", part)
        if not LONG_SIGNS <= len(span) <= MAX_STATEMENT_CHARS:
            continue
        if _OPERATOR.search(span) is None:
            continue
        # One more or less: a constant may have another letter, or none.
        strange = set(_VARIABLE.findall(span)) ^ variables
        if len(strange) <= 1:
            spans.append(span)
    yield from spans[-MAX_SPANS:]


def _surnames(gold: Gold, text: str) -> Iterator[str]:
    """Yield a person's whole name where a text states the last part of it."""
    last_name = surname(gold.answer)
    if not last_name or _holds(last_name, gold.prompt):
        return
    for cue in (_CUE, _LOOSE_CUE):
        for statement in _statements(text, cue):
            if last_name in folded(_bared(statement)):
                yield gold.answer
                break


def _restates(gold: Gold, statement: str, same: Compare) -> bool:
    """Return whether a statement is no more than the problem says.

    What is to be computed is equal to its answer.
    """
    if is_short(gold):
        return False
    # The same signs in another order are the answer in another order.
    if _signs(statement) == _signs(gold.answer):
        return False
    if _same_at_sight(gold.answer, statement):
        return False
    marked = [content for _, _, content in formulas(gold.prompt)[:MAX_ASKED]]
    unmarked = _ASKED.findall(gold.prompt)[:MAX_ASKED]
    return any(same(part.strip(_EDGES), statement) for part in marked + unmarked)


def _signs(text: str) -> list[str]:
    """Return the letters, digits and commands of a formula, sorted."""
    signs = _SIGNS.findall(clean(text[:MAX_CHARS]))
    return sorted(sign for sign in signs if sign not in _JOINTS)


def _statements(text: str, cue: re.Pattern[str]) -> Iterator[str]:
    """Yield what stands in boxes and tags, and behind each cue.

    That goes up to the sentence's end, and up to the clause's.
    """
    if cue is _CUE:
        yield from (content for _, _, content in boxes(text)[-_MAX_MARKED:])
        yield from TAG.findall(text)[-_MAX_MARKED:]
    matches = list(cue.finditer(text))
    for match in matches[-MAX_STATEMENTS:]:
        if _is_denied(text, match):
            continue
        # More than is compared, so that what is too long is seen to be.
        end = match.end() + MAX_STATEMENT_CHARS + MAX_BARE_CHARS
        rest = text[match.end() : end]
        if _NEGATION.match(rest):
            continue
        sentence = _SENTENCE_END.split(rest, maxsplit=1)[0]
        yield sentence
        clause = _CLAUSE_END.split(sentence, maxsplit=1)[0]
        if clause != sentence and not _DENIAL.match(sentence, len(clause)):
            yield clause


def _is_denied(text: str, cue: re.Match[str]) -> bool:
    """Return whether a cue stands behind a "not", or ends in one."""
    start = max(0, cue.start() - _DENIED_CHARS)
    return _DENIED.search(text, start, cue.end()) is not None


def _bared(statement: str) -> str:
    """Return a statement without what dresses it."""
    statement = statement.strip(_EDGES)
    filler = _FILLER.match(statement)
    if filler is None:
        return statement
    return statement[filler.end() :].strip(_EDGES)


# Whether a statement is the gold


def _same_text(gold: str, statement: str) -> bool:
    squashed = _squashed(gold)
    return squashed != "" and squashed == _squashed(statement)


def _same_without_algebra(gold: str, statement: str) -> bool:
    if len(statement) > MAX_INLINE_GOLD:
        raise Undecided
    return without_algebra(gold, statement).status == "correct"


def _same_at_sight(gold: str, statement: str) -> bool:
    value = _value(gold)
    if value is not None:
        return _value(statement) == value
    try:
        return without_algebra(gold, statement).status == "correct"
    except Undecided:
        return False


def _may_be_same(gold: str, statement: str) -> bool:
    """Return whether there is anything to compare.

    Prose is no formula, a number has digits, and a formula its variables.
    """
    gold_words = set(_LONG_WORD.findall(gold))
    words = _FORMULA_WORD.findall(statement)
    strange_words = [word for word in words if word not in gold_words]
    if len(strange_words) > _MAX_STRANGE_WORDS:
        return False
    if _value(gold) is not None:
        has_digits = _DIGIT.search(statement) is not None
        return has_digits and not _variables(statement)
    if _is_words(gold):
        return True
    is_list = gold[:1] in "([" and "," in gold
    if is_list or any(mark in gold for mark in _SETS):
        # A part of a set is not the set.
        return len(_signs(statement)) >= len(_signs(gold)) / 2
    if "=" in gold:
        gold_variables = set(_VARIABLE.findall(gold))
        strange = gold_variables ^ set(_VARIABLE.findall(statement))
        return len(strange) <= 1
    return _variables(gold) == _variables(statement)


def _variables(text: str) -> set[str]:
    """Return the variables of a formula, in an equation those behind its last sign."""
    value = text.rpartition("=")[2]
    return set(_VARIABLE.findall(value)) - _CONSTANTS


# What the policy said


def _was_said(gold: Gold, said: str) -> bool:
    """Return whether the policy named the gold as its own, not as a candidate."""
    if not said:
        return False
    value = _value(gold.answer)
    if value is not None:
        return names_number(said, value, forms_of(value))
    is_words = _is_words(_SIZES.sub("", gold.answer))
    return names_text(said, gold.answer, is_words)
