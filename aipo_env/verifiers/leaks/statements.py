"""What a text states: behind "the answer is", in boxes, as formulas in its prose."""

import re
from collections.abc import Iterator

from aipo_env.verifiers.extract import TAG, boxes, extract, formulas
from aipo_env.verifiers.leaks.gold import (
    LONG_SIGNS,
    Gold,
    is_short,
    is_words,
    value_of,
)
from aipo_env.verifiers.leaks.phrases import surname
from aipo_env.verifiers.leaks.plain_text import folded
from aipo_env.verifiers.leaks.spoken import as_formulas
from aipo_env.verifiers.leaks.standing import holds

MAX_STATEMENTS = 24
"""So many of a reply's statements are compared with the gold, the last ones."""
MAX_SPANS = 8
"""So many of the formulas that stand in prose."""
MAX_STATEMENT_CHARS = 200
"""A longer statement is no answer, unless the gold is as long."""
MAX_BARE_CHARS = 60
"""A reply that is longer than the gold by more characters is more than an answer."""
_MAX_MARKED = 4
"""So many of a reply's boxes and answer tags are its answers, the last ones."""
_DENIED_CHARS = 20
"""How far before a cue a denial of it may stand: `not the`."""

CUE = re.compile(
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
_CLAUSE_BEGIN = re.compile(r"[,:]\s")
_DENIED = re.compile(r"(?i)(?:\bnot|n't|\bnever|\bcannot be)\s*$")
"""What before a cue takes it back: `not`, `isn't`."""
_NEGATION = re.compile(r"(?i)not\b|never\b")
"""What behind a cue does."""
_DENIAL = re.compile(r"\s(?:is|are|was) (?:not|never)\b|\s(?:is|are)n't")
"""What behind a clause does: `12 is not the answer`."""
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
VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
"""A letter that stands alone."""
_ARTICLE = re.compile(r"^(?:a|A|I)\s")
"""What stands before a formula in prose and is no variable of it."""
EDGES = " \t\n*_`\"'$,;:."
"""What may stand at either end of a statement and is none of it."""


def statements_of(gold: Gold, text: str) -> Iterator[str]:
    """Yield what may be a statement of a gold's kind in a text."""
    # What a grader would read of it, were it the policy's own. The end of a text
    # without marks names a short gold too often by chance.
    reading = extract(text, unmarked=not is_short(gold))
    if reading.answer:
        yield reading.answer
    yield from statements(text, CUE)
    if len(text) <= len(gold.answer) + MAX_BARE_CHARS:
        yield text
    if is_short(gold):
        return
    is_math = gold.kind == "math"
    if not is_math or is_words(gold.answer):
        yield from _surnames(gold, text)
    if not is_math:
        return
    spoken_text = as_formulas(text)
    for version in dict.fromkeys((text, spoken_text)):
        yield from statements(version, _LOOSE_CUE)
        last_formulas = formulas(version)[-MAX_STATEMENTS:]
        yield from (content for _, _, content in last_formulas)
        yield from _statements_before(version)
    yield from _spans(gold, spoken_text)


def statements(text: str, cue: re.Pattern[str]) -> Iterator[str]:
    """Yield what stands in boxes and tags, and behind each cue.

    That goes up to the sentence's end, and up to the clause's.
    """
    if cue is CUE:
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
    if value_of(gold.answer) is not None or is_words(gold.answer):
        return
    variables = set(VARIABLE.findall(gold.answer))
    spans: list[str] = []
    for part in dict.fromkeys(map(bared, _PROSE_WORD.split(text))):
        span = _ARTICLE.sub("", part)
        if not LONG_SIGNS <= len(span) <= MAX_STATEMENT_CHARS:
            continue
        if _OPERATOR.search(span) is None:
            continue
        # One more or less: a constant may have another letter, or none.
        strange = set(VARIABLE.findall(span)) ^ variables
        if len(strange) <= 1:
            spans.append(span)
    yield from spans[-MAX_SPANS:]


def _surnames(gold: Gold, text: str) -> Iterator[str]:
    """Yield a person's whole name where a text states the last part of it."""
    last_name = surname(gold.answer)
    if not last_name or holds(last_name, gold.prompt):
        return
    for cue in (CUE, _LOOSE_CUE):
        for statement in statements(text, cue):
            if last_name in folded(bared(statement)):
                yield gold.answer
                break


def _is_denied(text: str, cue: re.Match[str]) -> bool:
    """Return whether a cue stands behind a "not", or ends in one."""
    start = max(0, cue.start() - _DENIED_CHARS)
    return _DENIED.search(text, start, cue.end()) is not None


def bared(statement: str) -> str:
    """Return a statement without what dresses it."""
    statement = statement.strip(EDGES)
    filler = _FILLER.match(statement)
    if filler is None:
        return statement
    return statement[filler.end() :].strip(EDGES)
