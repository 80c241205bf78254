"""Replies that give two answers and decide for neither of them.

They say that both stand, that they cannot tell, or give one for each case. All texts
are `blanked`; all repeats are bounded.
"""

import re

_MAX_BEHIND = 2_000
"""Only so much of what follows an answer is searched for what leaves it open."""
_MAX_BEFORE = 300
"""Only so much of what precedes two answers is searched for it."""
_MAX_CASES = 64
"""Only so many headings of cases are looked at, the last ones."""

_BOTH_STAND = re.compile(
    r"""
    (?: ^ | [.!?;:,(\n–—] | \b (?: so | and | but | thus | hence | therefore | since
        | as | that | because | believe | think | say | feel | find | argue ) \s )
    \s{0,9}
    (?:
        (?: both | either | each | (?: the | these | those ) \s two | the \s pair )
        (?: \s of \s (?: them | these | those | which | the \s two ) )?
        (?: \s (?: these | the | my ) )?
        (?: \s (?: answers? | options? | choices? | letters? | cases? | readings?
            | interpretations? | possibilities | solutions? | results? | conclusions?
            | one ) )?
        \s
        (?:
            (?: are | is | may | might | could | can | would | seems? | looks?
              | appears? | remains? | have | has ) \b
            [^.,;:!?\n]{0,40}? \b
            (?: right | correct | possible | valid | true | acceptable | plausible
              | defensible | justified | likely | reasonable | fine | open | merit
              | good | admissible | permitted | allowed | occur | arise | happen
              | hold | stand | fit | work )
        |   (?: occur | arise | happen | hold | stand | fit | work | qualify
              | make \s sense ) s?
        |   makes \s sense
        ) \b
    |
        neither \s (?: of \s (?: them | these | the \s two ) \s )?
        (?: can | could ) \s be \s (?: ruled \s out | excluded | preferred | dismissed )
    |
        (?: i | we | one ) \s
        (?: cannot | can['’]t | could \s not | am \s unable \s to )
        \s (?: decide | choose | tell | say | settle | determine | distinguish )
    |
        (?: (?: the | this ) \s )? (?: question | problem | it | this )
        \s (?: cannot | can['’]t | could \s not )
        \s be \s (?: answered | decided | determined | settled )
    |
        it \s is \s (?: impossible | not \s possible | hard ) \s to \s
        (?: decide | choose | tell | say | determine )
    |
        (?: it | that | this | the \s (?: correct \s | right \s )? answer ) \s
        depends \s on
    |
        (?: there \s are | we \s have | this \s gives ) \s two \s
        (?: equally \s )? (?: correct | right | possible | valid | good | defensible )
        \s (?: answers | options | choices )
    ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What says of two answers that each may be the one."""
_CASE = re.compile(
    r"""
    (?: ^ | \n | [.,;!?] \s ) [\s>#•*-]{0,9} (?: \d [.)] \s )?
    (?:
        (?P<numbered> case | scenario | interpretation | reading | situation
          | possibility | variant )
        \s (?: \d | [ivx]{1,4} | [a-z] ) (?! \w )
    |
        (?: in | under | on | with | for | by ) \s the \s
        (?: first | second | third | former | latter | other )
        \b
    |
        (?: the \s )? (?: first | second | third | other | one )
        \s (?P<counted> case | scenario | interpretation | reading | situation
             | possibility | variant ) \b
    |
        (?P<condition> if | when | for | with | under | assuming | suppose )
        \s (?! (?: this | that | these | those | example | instance | all ) \b )
        [^.:,;\n]{1,80}? (?: [:,] | \s (?= (?: the \s | my \s )? (?: correct \s )?
            answer \b ) )
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""How a case begins that has an answer of its own: Case 2 (n odd): …"""

_CASE_LINE = re.compile(
    r"(?:→|⇒|[=-]>|:)\s{0,3}[(\[]?(?P<letter>[A-Z])[)\]]?[\s.,;]{0,9}\Z"
)
"""A line that gives the letter of a case at its end: n odd → C."""


def are_left_open(before: str, rest: str) -> bool:
    """Return whether what surrounds two answers says that both stand.

    Args:
        before: What precedes the first.
        rest: What follows the last.
    """
    sides = before[-_MAX_BEFORE:], rest[:_MAX_BEHIND]
    return any(_BOTH_STAND.search(side) for side in sides)


def last_case(before: str) -> int | None:
    """Return where the last of several cases begins, None without cases.

    Args:
        before: A reply up to the end of its answer.
    """
    cases = list(_CASE.finditer(before))[-_MAX_CASES:]
    if not cases:
        return None
    kind = _kind(cases[-1])
    is_one_of_several = any(_kind(case) == kind for case in cases[:-1])
    return cases[-1].start() if is_one_of_several else None


def is_by_case(text: str) -> bool:
    """Return whether the last two lines of a reply give two letters, one a case."""
    lines = [line for line in text.splitlines() if line.strip()][-2:]
    found = [_CASE_LINE.search(line) for line in lines]
    letters = {line["letter"] for line in found if line}
    return len(letters) > 1


def _kind(case: re.Match[str]) -> str:
    """Return what cases have in common that stand beside each other."""
    word = case["numbered"] or case["counted"] or case["condition"]
    return word.casefold() if word else ""
