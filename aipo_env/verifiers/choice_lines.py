"""Lines that are nothing but an option: a letter, an option's text, or both."""

import re
from unicodedata import normalize

from aipo_env.verifiers.choice_doubts import fault_behind, is_denied
from aipo_env.verifiers.choice_options import (
    LETTERS,
    blanked,
    is_text,
    letters_of,
    without_dress,
)
from aipo_env.verifiers.choice_undecided import is_by_case

MAX_LINE_CHARS = 10_000
"""Only this much of the end of a line is read."""
SEVERAL = "several options are named"
MISMATCH = "the letter and the text name different options"

_LABEL = re.compile(
    r"""
    \s{0,40} [(\[]{0,2} ([A-Za-z])
    (?: [)\].:,]{1,2} | \s{0,40} [-–—] | \s{1,40} (?=\() | $ )
    \s{0,40} (.*)
    """,
    re.VERBOSE,
)
"""A letter as it stands before an option's text, on a line of its own."""
_LEAD = re.compile(
    r"""
    \s{0,40}
    (?: [>•#-] \s{1,9} | [✅✔✓☑👉➡→] \ufe0f? \s{0,9} )?
    (?: (?: so | thus | hence | therefore ) [,:]? \s{1,9} )?
    (?:
        (?: the \s{1,9} | my \s{1,9} )?
        (?: (?: final | selected | chosen | correct | best | right | predicted )
            \s{1,9} )?
        (?: option | choice | answer | ans | selection | pick | prediction | conclusion
          | solution | result | letter | response | guess )
        \s{0,9} [:.=]? \s{1,9}
    |   (?: final | selected | chosen | correct | best | predicted ) \s{0,9} : \s{1,9}
    )?
    (?=\S)
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What may stand before an option without saying more than that it is one."""
_SO = re.compile(r"\s{0,40}(?:so|thus|hence|therefore)\b", re.IGNORECASE)
"""A line that begins so is no entry of a list."""
_BOLD = re.compile(r"\s{0,9}\*\*([^*\n]{1,400})\*\*")
_BOLD_END = re.compile(
    r"""
    (?: [.!] | : (?= \s{1,9} \*\* [(\[]? [A-Z] (?! \w ) ) )
    \s{1,9} \*\* ([^*\n]{1,400}) \*\* [.\s]{0,9} \Z
    """,
    re.VERBOSE,
)
"""A last sentence that is all bold: This is battery. **B**"""
_REASONED = re.compile(r"\s{0,9}[(\[]?([A-Z])[)\]]?[.,:]?\s(?:because|since)\s")
"""A reply that begins with a letter and why: C because balls of ice have layers."""
_ENTRY = re.compile(
    r"\s{0,9}(?:[>•❌✅✗✓#-]\s{0,9})?(?:(?:[Oo]ption|[Cc]hoice)\s)?[(\[]?([A-Z])[)\].:]"
)
"""How an option begins that stands in a list."""

_ONLY = re.compile(
    r"""
    \s{0,9} [(\[]? ([A-Z])
    (?: [)\]]? \s{0,3} (?: : | (?P<dash> [–—] | -{1,2} (?= \s ) ) ) | [).\]] )
    \s{1,9} (?= [^\s?] )
    """,
    re.VERBOSE,
)
"""An option's letter at the start of a reply, before what is said of it."""
_FIRST_SENTENCE = re.compile(r"[^\n]{1,600}?(?:[.!?;](?=\s|$)|\n|$)")
_OTHER_LETTER = re.compile(r"(?<![\w'’\\°])(?<!°\s)(?!I\b|A\s[a-z])[A-Z](?![\w'’-])")
"""Neither a pronoun, nor an article, nor a unit."""
_RULED_OUT = re.compile(
    r"""
    \b (?: wrong | incorrect | false | eliminat\w{1,4} | ruled? \s out | untrue
       | impossible | cannot \s be | i \s (?: cannot | can['’]t ) | depends | unclear
       | (?: would | could | might ) \s (?: choose | pick | say | think | guess
           | expect )
       | distractor | unsure | maybe | perhaps | otherwise | either | if | whether | hmm
       | decide
       | (?: not | isn['’]t ) \s (?: the | right | correct | true ) ) \b
    | [❌✗✘?]
    """,
    re.VERBOSE | re.IGNORECASE,
)
_APPOSITION = re.compile(r"\s[–—-]\s(?:is|are|was|were|has|have)\b")
"""What makes an option the subject of a sentence: C – x^2 – is what remains."""
_WORD = re.compile(r"\d[\d.,]{0,20}|\w{3,40}")
_FORMULA = re.compile(r"[=≈<>0-9]|\s[–—-]\s")
"""What makes a letter behind which it stands a quantity: A – the area – is 2 m²."""
_MIN_WORDS = 4
"""Longer words that a sentence has at least which is more than a name."""
_MIN_SHARE = 0.5
"""Of an option's words, those which a restatement has at least."""


def letter_on_line(line: str, choices: tuple[str, ...]) -> str:
    """Return the letter of a line that is nothing but an option, or "".

    It is a letter, an option's text, or both.
    """
    text = normalize("NFKC", line[-MAX_LINE_CHARS:]).strip()
    return _named(text, choices)[0]


def of_lone_line(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return what a last line that is nothing but an option says, or such a first one.

    Options that are listed, one on each line, are not chosen.
    """
    lines = [line for line in text.splitlines() if blanked(line).strip()]
    if not lines:
        return "", ""
    fault = ""
    for line, neighbours, is_last in (
        (lines[-1], lines[-2:-1], True),
        (lines[0], lines[1:], False),
    ):
        letter, fault_of_line = _named(line, choices)
        fault = fault or fault_of_line
        if not letter:
            continue
        is_listed = any(_is_listed(each, letter, choices) for each in neighbours)
        if is_listed and not _SO.match(blanked(line)):
            return "", SEVERAL
        if is_last:
            return letter, ""
        rest = "\n" + blanked(text[text.index(line) + len(line) :])
        fault = fault_behind(letter, "", LETTERS[: len(choices)], rest)
        return ("", fault) if fault else (letter, "")
    bold_end = _BOLD_END.search(text, max(0, len(text) - MAX_LINE_CHARS))
    letter = _named(bold_end[1], choices)[0] if bold_end else ""
    if letter and is_by_case(blanked(text)):
        return "", SEVERAL
    if letter:
        return letter, ""
    start = _bold_start(text, lines, choices) or _reasoned_start(text, choices)
    return start or ("", fault)


def _reasoned_start(text: str, choices: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the letter that a reply begins with if its reason follows; or None."""
    start = _REASONED.match(text)
    if start is None or start[1] not in LETTERS[: len(choices)]:
        return None
    fault = fault_behind(
        start[1], "", LETTERS[: len(choices)], blanked(text[start.end() :])
    )
    return ("", fault) if fault else (start[1], "")


def of_only_option(text: str, choices: tuple[str, ...]) -> str:
    """Return the letter with which a reply begins that restates its option, or "".

    No other option is spoken of, none is ruled out, and no other one is restated as
    well: B – a guardian may sell it if a court agrees. Behind a dash, a lone paragraph
    may say it in other words than the option, but for a formula.
    """
    plain = blanked(text)
    letters = LETTERS[: len(choices)]
    label = _ONLY.match(plain)
    if label is None or label[1] not in letters:
        return ""
    letter, rest = label[1], plain[label.end() :]
    others = letters.replace(letter, "")
    if any(found[0] in others for found in _OTHER_LETTER.finditer(rest)):
        return ""
    sentence = _FIRST_SENTENCE.match(rest)
    own_text = choices[letters.index(letter)].casefold()
    ruled_out = {found[0].casefold() for found in _RULED_OUT.finditer(rest)}
    is_ruled_out = any(words not in own_text for words in ruled_out)
    if sentence is None or is_denied(rest) or is_ruled_out:
        return ""
    if _APPOSITION.search(sentence[0]):
        return ""
    said = set(_WORD.findall(sentence[0].casefold()))
    shares = [_share(choice, said) for choice in choices]
    own = shares.pop(letters.index(letter))
    most = max(shares, default=0.0)
    is_alone = "\n" not in rest.strip() and not _FORMULA.search(rest)
    is_free = label["dash"] is not None and is_alone and len(said) >= _MIN_WORDS
    is_restated = own >= _MIN_SHARE and own > most
    if not is_restated and not (is_free and most <= own):
        return ""
    return "" if fault_behind(letter, "", letters, "\n" + rest) else letter


def _share(choice: str, said: set[str]) -> float:
    """Return which share of the words of an option is said."""
    words = set(_WORD.findall(blanked(choice).casefold()))
    return len(words & said) / len(words) if words else 0.0


def _bold_start(
    text: str, lines: list[str], choices: tuple[str, ...]
) -> tuple[str, str] | None:
    """Return what bold words say that a reply begins with; None if no option."""
    bold = _BOLD.match(text)
    letter = _named(bold[1], choices)[0] if bold else ""
    if not bold or not letter:
        return None
    if any(_is_listed(line, letter, choices) for line in lines[1:]):
        return "", SEVERAL
    rest = blanked(text[bold.end() :])
    # A bold sentence ends within its marks.
    rest = "\n" + rest if bold[1].rstrip().endswith((".", "!")) else rest
    fault = fault_behind(letter, "", LETTERS[: len(choices)], rest)
    return ("", fault) if fault else (letter, "")


def _is_listed(neighbour: str, letter: str, choices: tuple[str, ...]) -> bool:
    """Return whether the line beside an option's is another option's."""
    if _named(neighbour, choices)[0] not in ("", letter):
        return True
    entry = _ENTRY.match(blanked(neighbour))
    return entry is not None and entry[1] in LETTERS[: len(choices)].replace(letter, "")


def _named(line: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return the letter of a line that is nothing but an option, and what is wrong."""
    bare = without_dress(line).rstrip(" .!。")
    lead = _LEAD.match(bare)
    # "A. London" and "Result A" begin with no lead; an option's text may.
    letters = letters_of(line, choices)
    if lead and lead.end() and len(letters) != 1:
        bare = bare[lead.end() :]
        line = bare
        letters = letters_of(line, choices)
    label = _LABEL.fullmatch(bare)
    is_lone = label is not None and not label[2]
    if label and is_lone:
        letter = label[1].upper()
        if letter in LETTERS[: len(choices)]:
            is_bare = len(bare.strip()) == 1
            if is_bare and is_text(label[1], choices):
                return "", "a letter that is an option's text as well"
            return letter, ""
        return (letters, "") if len(letters) == 1 else ("", f"{letter} is no option")
    if len(letters) == 1:
        return letters, ""
    if label is None or not (bare[0] in "([" or label[1].isupper()):
        return "", ""
    letters = letters_of(label[2], choices)
    if not letters:
        return "", ""
    letter = label[1].upper()
    return (letter, "") if letter in letters else ("", MISMATCH)
