"""Where a reply goes on with other questions than the one it was asked.

Models that were not taught to end a turn do: they write the next question of the test,
its options, and an answer to it. All repeats are bounded.
"""

import re
from itertools import islice

from aipo_env.verifiers.choice_options import blanked, letters_of, without_dress

_MAX_OPTIONS_CHARS = 3_000
"""Only so much behind a question is searched for its options."""
_MAX_HEADINGS = 8
"""Only so many headings of questions are looked at."""

_QUESTION = re.compile(
    r"""
    ^ [^\w\n]{0,6}
    (?:
        (?: (?: the\ | a\ )? (?: next | new | another )\ )?
        (?: question | problem | exercise | user | human | instruction | input
          | frage | aufgabe | pregunta | pergunta | questão | domanda | vraag | pytanie
          | вопрос | soru | câu | câu\ hỏi | 问题 | 問題 | 题目 | 題目 | 問 | 问 | 質問
          | 문제 | 질문 | سؤال | السؤال )
        [^\S\n]{0,2} (?: (?: no\.? | n[º°] )\ ? )? \#? \d{0,3} [*_]{0,3}
        [^\S\n]? (?: [:.)] (?! \d ) | (?<= \d ) (?= [^\w\n]{0,6} $ ) )
    |   q (?: \d{1,3} [.:)] | : )
    )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
"""The heading of a question."""
_TURN_END = re.compile(
    r"<\|(?:user|im_end|im_start|endoftext|end_of_text|eot_id|start_header_id|return)\|>"
    r"|</s>"
)
"""What ends a turn, or begins one of somebody else's."""
_NUMBERED = re.compile(
    r"^\W{0,6}(?:question|problem|exercise)[ \t]?#?(\d{1,3})\b(?=\W{0,6}$)",
    re.IGNORECASE | re.MULTILINE,
)
"""One that is but a number."""
_ASKED = re.compile(
    r"""
    ^ [^\n]{1,400}
    (?: \? | _{2,20} | \.\.\. | … | \b (?: is | are | was | were | the | an? | of | by
      | to | in | for | with | called | that ) )
    [^\S\n]{0,9} \n \s{0,3}
    [^\w\n]{0,4} A [).:] [ \t]{1,3} ([^\n]{1,400}) \n
    [^\w\n]{0,4} B [).:] [ \t]{1,3} ([^\n]{1,400}) (?: \n | \Z )
    """,
    re.VERBOSE | re.MULTILINE,
)
"""A question without a heading, and its first two options."""
_INTRODUCTION = re.compile(
    r"""
    \W{0,6}
    (?: [^\n]{1,200} : \W{0,6}
    | (?: let | sure | okay | ok | alright | certainly | of\ course | great | here
        | i['’]ll | to ) \b [^\n]{0,200}
    | (?: given | known | facts? | context | passage | text | background | topic
        | subject | data | premises? ) \b [^\n:]{0,20} :
      (?: [^\n]{0,400} \n ){0,9} [^\n]{0,400}
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What leads to the task's own question: Let's look at it. Given: …"""
_OPTION = re.compile(r"^[^\w\n]{0,6}[A-Z][).:][ \t]{1,3}([^\n]{1,400})$", re.MULTILINE)


def has_several_questions(text: str) -> bool:
    """Return whether a reply goes through several questions, which it numbers."""
    return len({found[1] for found in _NUMBERED.finditer(text)}) > 1


def own_turn(text: str) -> str:
    """Return a reply up to where its turn ends."""
    for mark in _TURN_END.finditer(text):
        if text[: mark.start()].strip():
            return text[: mark.start()]
    return text


def before_heading(text: str, choices: tuple[str, ...]) -> str:
    """Return a reply up to the heading of another question.

    One that begins a reply, or whose options are the task's own, is the task's own.
    """
    if _NUMBERED.match(text):
        return text
    for heading in islice(_QUESTION.finditer(text), _MAX_HEADINGS):
        head = text[: heading.start()]
        behind = text[heading.end() : heading.end() + _MAX_OPTIONS_CHARS]
        bare = blanked(head).strip(" \t\n#>-")
        if not bare or _INTRODUCTION.fullmatch(bare) or _lists_own(behind, choices):
            continue
        return head
    return text


def before_options(text: str, choices: tuple[str, ...]) -> tuple[str, bool]:
    """Return a reply up to a question with options, and if those are the task's own."""
    for asked in _ASKED.finditer(text):
        head = text[: asked.start()]
        if head.strip():
            return head, _lists_own(asked[0], choices)
    return text, True


def _lists_own(text: str, choices: tuple[str, ...]) -> bool:
    """Return whether the first options that are listed in a text are the task's."""
    found = [option[1] for option in _OPTION.finditer(text)][:2]
    return bool(found) and all(_is_own(option, choices) for option in found)


def _is_own(option: str, choices: tuple[str, ...]) -> bool:
    """Return whether an entry of a list begins with the text of an option."""
    if letters_of(option, choices):
        return True
    bare = without_dress(option).casefold()
    texts = [without_dress(choice).casefold() for choice in choices]
    return any(text and bare.startswith(text) for text in texts)
