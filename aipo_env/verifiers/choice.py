"""Ground truth for multiple choice: which option an answer settles on, if on any."""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from string import ascii_uppercase
from typing import NamedTuple
from unicodedata import normalize

from aipo_env.errors import VerifierError, shown
from aipo_env.records import Task, Verdict
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.choice_places import (
    WORD_CHAR,
    ChoicePlace,
    blanked,
    choice_places,
    is_open_ended,
    is_taken_back,
)
from aipo_env.verifiers.extract import MAX_TURN_CHARS, joins, without_thinking
from aipo_env.verifiers.workers import shared_pool

MAX_ANSWER_CHARS = 10_000
"""Only this much of the end of an answer is read."""
MAX_PLACES = 64
"""Only so many of the places that may hold the answer are read, the last ones."""
MAX_PLACE_CHARS = 500
"""Only this much of the beginning of a place is read."""
MAX_INLINE_CHOICE = 2_000
"""Longer texts are read in a worker process."""
LETTERS = ascii_uppercase
"""The letters of options, in their order."""

_MAX_LEAD_WORDS = 12
"""Words that may stand between "the answer is" and the letter."""
_BEFORE_LEAD = (" ", "\t", ":", "#", ">", "=", ",", ".", "…")
"""Marks that may stand before the letter, or the words that lead to it."""
_MAX_CUTS = 12
"""Ends of clauses up to which a text is compared with those of the options."""
_LEAD_WORDS = frozenset(
    word
    for words in (
        "option options choice letter answer statement alternative item number",
        "the that this it is was be must should would will has to one only just most",
        "so thus therefore hence then indeed clearly definitely certainly obviously",
        "simply probably likely now labelled labeled marked called lettered given by",
        "in fact i we think believe choose pick select chose go with say guess correct",
        "right best final my opción opcion réponse letra buchstabe lettre вариант",
    )
    for word in words.split()
)
"""What may stand before a letter without changing what is said."""
_NEXT_WORDS = frozenset(
    word
    for words in (
        "is are was as because since and or not but rather instead due for with which",
        "by given so if in from based according therefore hence thus here only that",
        "this these those it its also matches fits correctly though although over",
        "unlike then when where while would must seems alone we i the there",
    )
    for word in words.split()
)
"""What may follow a letter that is one of an option. Others make a word of it, or of
what it begins: A river, C major, I computed."""
_DENYING = re.compile(
    r"(?: not | neither | never | except | anything\ but ) \b | [≠不非] | \\neq? \b",
    re.VERBOSE | re.IGNORECASE,
)
_BUT = re.compile(r"\bbut\b(?: rather| instead)?", re.IGNORECASE)
_HEAD = re.compile(
    rf"""
    \s{{0,40}} [(\[<]? \s{{0,40}} ([A-Za-z]) \s{{0,40}} [)\]>]?
    (?! {WORD_CHAR} | ['’] )
    """,
    re.VERBOSE,
)
"""A letter that stands alone, in brackets or not."""
_WORD = re.compile(r"[\s,:(\[]{0,40}(\w{1,40})")
_PRODUCT = re.compile(r"\*[A-Za-z0-9]")
_FOLLOWING = re.compile(rf"\s{{1,40}}({WORD_CHAR}{{1,40}})")
_FORMULA = re.compile(r"\s{0,40} (?: [=+*^<>|\\∝≈≤≥→] | [-–] \s{0,40} \d )", re.VERBOSE)
"""What behind a letter makes a formula of it: E = 0.9."""
_MORE = re.compile(
    rf"""
    \s{{0,40}} \(? \s{{0,40}}
    (
        , \s{{0,40}} (?: and | or ) \b
    |   [,;/&+、和或–—-]
    |   (?: and | or | nor | oder | ou | o ) \b
    )
    \s{{0,40}}
    (?: (?: maybe | perhaps | possibly | actually | also | even | both | either | else
        | option ) \s{{1,40}} ){{0,2}}
    [(\[]? ([A-Z]) [)\]]? (?! {WORD_CHAR} | ['’] )
    ( \s{{0,40}} (?: $ | [.,;:/&)\]\n] | and\b | or\b ) )?
    """,
    re.VERBOSE,
)
"""Another letter beside the first, and whether nothing is said of it alone."""
_DENIED_AFTER = re.compile(
    r"""
    \s{0,40} [)\]]? \s{0,40}
    (?:
        (?: is | was | seems | looks | would\ be | must\ be ) \s
        (?: \w+ly \s )? (?: not | wrong | incorrect | false | never | impossible ) \b
    |   (?: isn | wasn | can | couldn ) ['’]t \b
    |   cannot \b
    |   不 | 错
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SENTENCE_CUT = re.compile(r"\.(?!\d)|[;!?\n]")
_CUT = re.compile(
    r"""
      [.,:] (?!\d)
    | [;!?)(\]\n]
    | \s (?: because | since | as | so | which | where | when | and | or | but | not
        | rather | instead | is | for | with | in ) \b
    | \s [-–—]
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Where a clause may end, and with it an option's text."""
_SEPARATOR = re.compile(r"\s{0,40} [)\]]? \s{0,40} ([.,:=(→–—-])? \s{0,40}", re.VERBOSE)
_CAPITAL = re.compile(r"(?<![\w'’\\])[A-Z](?![\w'’])")
"""A capital that stands alone; not that of `A's`."""
_LABEL_LINE = re.compile(
    r"""
    \s{0,40} [(\[]? ([A-Za-z])
    (?: [)\].:,] | \s{0,40} [-–—] | \s{1,40} (?=\() | $ )
    \s{0,40} (.*)
    """,
    re.VERBOSE,
)
"""A letter as it stands before an option's text, on a line of its own."""
_OPTION = re.compile(
    r"\s{0,40}(?:final |the )?(?:option|choice|answer)\s{1,40}(?=\S)", re.IGNORECASE
)
_LETTER_BEHIND = re.compile(
    r"""
    [\s,(]{0,40} (?: (?: i\.e\.,? | which\ is | that\ is | so | or ) \s{0,40} )?
    (?: the\ )? (?: option | choice | answer )? \s{0,40}
    [(\[]? ([A-Z]) [)\]]? \s{0,40} (?: $ | [.,;:!)] )
    """,
    re.VERBOSE,
)
"""A letter behind an option's text: 2.1 eV (A)."""
_TEXT_JOINT = re.compile(
    r"\s{0,40} (?: [,;/&] | \b(?: and | or )\b ){1,4} \s{0,40}", re.VERBOSE
)
_NUMBER = re.compile(r"[-+−]?[0-9][0-9.,]{0,40}")
_UNIT = re.compile(r"\s{0,40}[^\W\d_%°µ]|\s{0,40}[%°µ]")
_DRESS = re.compile(
    r"""
      \\(?: text | textbf | textit | mathrm | mathbf ) \b
    | \\[()\[\],;!\ ]      # fences and blanks of LaTeX's
    | [*_`${}"“”~]         # marks of Markdown, dollar signs, braces, quotes
    """,
    re.VERBOSE,
)
_BLANK = re.compile(r"\s")
_SEVERAL = "several options are named"
_DENIED = "an option is denied"
_MISMATCH = "the letter and the text name different options"


class _Claim(NamedTuple):
    """What a place says.

    Args:
        letter: The option that it names; "" if none.
        fault: Why it settles nothing, although it speaks of options.
        end: Where what was read of it ends, in the whole text.
        denied: Letters of which it says that they are not the answer.
    """

    letter: str = ""
    fault: str = ""
    end: int = 0
    denied: str = ""


def read_choice(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return the letter an answer settles on, or "" and why it settles on none.

    Places that may name an option are read in their order, whatever marks them: boxes
    and answer tags, what follows "the answer is", a letter that "is correct". The last
    one that names an option decides; without any, a last line that is nothing but an
    option, or a first one. A name ends with its clause: reasons and other options
    behind it are no part of it. Two letters, a denial, a letter outside the options, a
    letter beside another option's text, a last box that never closes, and an answer
    taken back afterwards settle nothing.
    """
    text = normalize("NFKC", without_thinking(text)[-MAX_ANSWER_CHARS:])
    # Some characters are many when normalised.
    text = text[-MAX_ANSWER_CHARS:].strip()
    if is_open_ended(text):
        return "", "the last box or answer tag never closes"
    places = choice_places(text)[-MAX_PLACES:]
    letter, fault = _settled(text, places, choices)
    if letter or fault:
        return letter, fault
    letter, fault = _of_lone_line(text, choices)
    return letter, "" if letter else fault or "no option was chosen"


def _settled(
    text: str, places: list[ChoicePlace], choices: tuple[str, ...]
) -> tuple[str, str]:
    """Return what the last place says that speaks of an option, and why it says none.

    Places before it that "or" or a comma joins to it are read with it.
    """
    plain = blanked(text)
    settled = _Claim()
    next_start = 0
    denied = ""
    for place in reversed(places):
        claim = _read(text, plain, place, choices)
        if settled.letter:
            gap = plain[claim.end or place.end : next_start]
            # Side by side they are joined as well.
            is_beside = not gap.strip() and "\n" not in gap
            if not is_beside and not joins(gap.lstrip(")] ")):
                break
            if claim.fault or claim.letter not in ("", settled.letter):
                return "", _SEVERAL
        elif claim.fault:
            return "", claim.fault
        elif claim.letter:
            if claim.letter in denied:
                return "", _DENIED
            rest = plain[claim.end :]
            if is_taken_back(rest) or _is_denied(claim.letter, rest):
                return "", "the answer was taken back"
            settled = claim
        denied += claim.denied
        next_start = place.start
    if not settled.letter and denied:
        return "", _DENIED
    return settled.letter, ""


def _is_denied(letter: str, rest: str) -> bool:
    """Return whether what follows an answer says that its letter is wrong."""
    if _DENIED_AFTER.match(rest):
        return True
    for found in _CAPITAL.finditer(rest):
        if found[0] == letter and _DENIED_AFTER.match(rest, found.end()):
            return True
    return False


def _read(
    text: str, plain: str, place: ChoicePlace, choices: tuple[str, ...]
) -> _Claim:
    """Return what a place says.

    Args:
        text: The whole answer.
        plain: It, `blanked`.
        place: In it.
        choices: The options.
    """
    if place.dress == "verdict":
        return _verdict(plain, place, choices)
    end = min(place.end, place.begin + MAX_PLACE_CHARS)
    content = text[place.begin : end]
    bare = plain[place.begin : end]
    letter, size = _named_by_text(content, choices)
    alone = _HEAD.fullmatch(_undress(content))
    if letter and not alone:
        return _texted(content, bare, place, letter, size, choices)
    start, has_lead, is_denying = _skip_lead(bare)
    if is_denying:
        return _denial(text, plain, place, start, choices)
    head = _HEAD.match(bare, start)
    if head and _is_letter(content, bare, head, has_lead=has_lead):
        return _lettered(content, bare, head, place, choices)
    if letter:
        return _texted(content, bare, place, letter, size, choices)
    return _unclear(content, bare, place)


def _verdict(plain: str, place: ChoicePlace, choices: tuple[str, ...]) -> _Claim:
    letter = plain[place.begin]
    if place.others and place.others != letter:
        return _Claim(fault=_SEVERAL)
    # A capital of something else, which happens to be right.
    if letter not in LETTERS[: len(choices)]:
        return _Claim()
    return _Claim(letter, end=place.end)


def _skip_lead(bare: str) -> tuple[int, bool, bool]:
    """Return where a letter may stand, behind what may stand before it.

    Also whether "option" or its like does, and whether something denies what follows.
    """
    position = 0
    has_lead = False
    for _ in range(_MAX_LEAD_WORDS):
        while bare[position : position + 1] in _BEFORE_LEAD:
            position += 1
        if _DENYING.match(bare, position):
            return position, has_lead, True
        word = _WORD.match(bare, position)
        if word is None:
            break
        name = word[1]
        is_pronoun = name == "I" and _next_word(bare, word.end()) in _LEAD_WORDS
        if len(name) == 1 and not is_pronoun:
            break
        if name.casefold() not in _LEAD_WORDS:
            break
        has_lead = True
        position = word.end()
    return position, has_lead, False


def _next_word(bare: str, position: int) -> str:
    word = _WORD.match(bare, position)
    return word[1].casefold() if word else ""


def _is_letter(content: str, bare: str, head: re.Match[str], *, has_lead: bool) -> bool:
    """Return whether a letter that stands alone is one of an option."""
    letter = head[1]
    has_bracket = head[0].strip()[:1] in "([<" or head[0].strip()[-1:] in ")]>"
    rest = bare[head.end() :]
    # Dress that only formulas have: an index, a power, a command.
    is_indexed = content[head.end() : head.end() + 2].lstrip("$")[:1] in ("_", "^")
    if _PRODUCT.match(content, head.end()):
        return False
    if is_indexed and content[head.end() : head.end() + 2] != "__":
        return False
    if rest.lstrip()[:1] == "?":
        return False
    is_last = not rest.strip(" .!,;:)]>")
    if letter.islower() and not (has_bracket or has_lead or is_last):
        return False
    if has_bracket or is_last:
        return True
    # A mark or a number may follow at once; a word only if it can go on from a letter.
    following = _FOLLOWING.match(rest)
    if following is None or following[1][0].isdigit():
        return True
    if len(following[1]) == 1 and following[1].isupper():
        return True
    return following[1].casefold() in _NEXT_WORDS


def _lettered(
    content: str,
    bare: str,
    head: re.Match[str],
    place: ChoicePlace,
    choices: tuple[str, ...],
) -> _Claim:
    """Return what a place says that begins with a letter."""
    letter = head[1].upper()
    end = head.end()
    rest = bare[end:]
    more = _MORE.match(rest)
    if more and more[2] != letter and _is_list(more):
        return _Claim(fault=_SEVERAL)
    if _DENIED_AFTER.match(rest):
        return _Claim(denied=letter)
    named = _texts_behind(content[end:], choices)
    if named:
        if letter not in named:
            return _Claim(fault=_MISMATCH)
    elif _FORMULA.match(rest):
        return _Claim()
    if letter not in LETTERS[: len(choices)]:
        return _Claim(fault=f"{letter} is no option")
    return _Claim(letter, end=place.begin + end)


def _texted(
    content: str,
    bare: str,
    place: ChoicePlace,
    letter: str,
    size: int,
    choices: tuple[str, ...],
) -> _Claim:
    """Return what a place says that begins with an option's text, `size` long."""
    if bare[size:].lstrip()[:1] == "?":
        return _Claim()
    behind = _LETTER_BEHIND.match(bare, size)
    if behind and behind[1] != letter:
        return _Claim(fault=_MISMATCH)
    joint = _TEXT_JOINT.match(bare, size)
    if joint:
        other, _ = _named_by_text(content[joint.end() :], choices)
        if other not in ("", letter):
            return _Claim(fault=_SEVERAL)
    return _Claim(letter, end=place.begin + size)


def _is_list(more: re.Match[str]) -> bool:
    """Return whether a second letter is named as the first is."""
    joint = more[1].strip(" ,")
    # "B, A is too slow" and "B and A is wrong" speak of another option.
    if more[3] is not None or "/" in joint or "&" in joint:
        return True
    return joint in ("or", "nor", "或", "oder", "ou", "o")


def _texts_behind(rest: str, choices: tuple[str, ...]) -> list[str]:
    """Return the letters of the options whose text follows a letter."""
    separator = _SEPARATOR.match(rest)
    # Behind a stop or a comma only a whole sentence is an option's text.
    is_stop = separator is not None and separator[1] in (".", ",")
    start = separator.end() if separator else 0
    cut = _SENTENCE_CUT if is_stop else _CUT
    for part in _parts(rest[start:], cut):
        letters = _letters_of(part, choices)
        if letters:
            return letters
    return []


def _named_by_text(content: str, choices: tuple[str, ...]) -> tuple[str, int]:
    """Return the letter of the option whose text a place is, and how long that is."""
    for part in _parts(content, _CUT):
        letters = _letters_of(part, choices)
        if len(letters) == 1:
            return letters[0], len(part)
        if letters:
            break
    return _named_by_number(content, choices), len(content)


def _named_by_number(content: str, choices: tuple[str, ...]) -> str:
    """Return the letter of the one option that is this number with a unit."""
    number = _undress(content)
    if not _NUMBER.fullmatch(number):
        return ""
    found = []
    for letter, choice in zip(LETTERS, choices, strict=False):
        option = _undress(normalize("NFKC", choice))
        if option.startswith(number) and _UNIT.match(option, len(number)):
            found.append(letter)
    return found[0] if len(found) == 1 else ""


def _parts(text: str, cut: re.Pattern[str]) -> Iterator[str]:
    """Yield what a text is up to each end of a clause, the longest first."""
    ends = [0]
    for found in cut.finditer(text):
        ends.append(found.start())
        if len(ends) > _MAX_CUTS:
            break
    yield text
    for end in reversed(ends):
        if text[:end].strip():
            yield text[:end]


def _denial(
    text: str, plain: str, place: ChoicePlace, start: int, choices: tuple[str, ...]
) -> _Claim:
    """Return what a place says that begins with "not": it may go on "but B"."""
    bare = plain[place.begin : place.end]
    stop = _SENTENCE_CUT.search(bare, start)
    clause_end = stop.start() if stop else len(bare)
    denying = _DENYING.match(bare, start)
    instead = _BUT.search(bare, denying.end() if denying else start, clause_end)
    if instead:
        begin = place.begin + instead.end()
        following = ChoicePlace(begin, begin, place.end, "line")
        claim = _read(text, plain, following, choices)
        if claim.letter:
            return claim
    denied = "".join(_CAPITAL.findall(bare[start:clause_end]))
    if len(set(denied)) > 1:
        return _Claim(fault=_SEVERAL)
    return _Claim(denied=denied)


def _unclear(content: str, bare: str, place: ChoicePlace) -> _Claim:
    """Return the fault of a place that names several letters, of which none first."""
    # A formula names none.
    if place.dress == "mark" and ("\\" in _undress(content) or "=" in content):
        return _Claim()
    stop = _SENTENCE_CUT.search(bare)
    clause = bare[: stop.start()] if stop else bare
    letters = set(_CAPITAL.findall(clause))
    return _Claim(fault=_SEVERAL) if len(letters) > 1 else _Claim()


def letter_on_line(line: str, choices: tuple[str, ...]) -> str:
    """Return the letter of a line that is nothing but an option, or "".

    It is a letter, an option's text, or both.
    """
    text = normalize("NFKC", line[-MAX_ANSWER_CHARS:]).strip()
    return _label(text, choices)[0]


def _of_lone_line(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return what a last line that is nothing but an option says, or such a first one.

    Options that are listed, one on each line, are not chosen.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "", ""
    fault = ""
    for line, neighbours in ((lines[-1], lines[-2:-1]), (lines[0], lines[1:2])):
        letter, fault_of_line = _label(line, choices)
        fault = fault or fault_of_line
        if not letter:
            continue
        besides = [_label(neighbour, choices)[0] for neighbour in neighbours]
        if any(beside not in ("", letter) for beside in besides):
            return "", _SEVERAL
        rest = blanked(text[text.index(line) + len(line) :])
        if line == lines[0] and (is_taken_back(rest) or _is_denied(letter, rest)):
            return "", "the answer was taken back"
        return letter, ""
    return "", fault


def _label(line: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return the letter of a line that is nothing but an option."""
    bare = _OPTION.sub("", _undress(blanked(line)))
    label = _LABEL_LINE.fullmatch(bare)
    if label and not label[2]:
        letter = label[1].upper()
        is_valid = letter in LETTERS[: len(choices)]
        return (letter, "") if is_valid else ("", f"{letter} is no option")
    letters = _letters_of(line, choices)
    if len(letters) == 1:
        return letters[0], ""
    if label is None or not (bare[0] in "([" or label[1].isupper()):
        return "", ""
    letters = _letters_of(label[2], choices)
    if not letters:
        return "", ""
    letter = label[1].upper()
    return (letter, "") if letter in letters else ("", _MISMATCH)


def _letters_of(text: str, choices: tuple[str, ...]) -> list[str]:
    """Return the letters of the options that have this text."""
    plain_text = _plain(text)
    if not plain_text:
        return []
    options = zip(LETTERS, choices, strict=False)
    return [letter for letter, choice in options if _plain(choice) == plain_text]


def _undress(text: str) -> str:
    bare = _DRESS.sub("", text).strip()
    return bare.removesuffix(".").strip()


@lru_cache(4096)
def _plain(text: str) -> str:
    """Return what two spellings of one option have in common."""
    bare = _undress(normalize("NFKC", text))
    squeezed = _BLANK.sub("", bare).casefold()
    return squeezed.removeprefix("(").removesuffix(")")


async def _choice(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return what `read_choice` does, and hold nobody up."""
    if len(text) + sum(map(len, choices)) <= MAX_INLINE_CHOICE:
        try:
            return read_choice(text, choices)
        except Exception:
            return "", "the answer cannot be read"
    texts = json.dumps([text[-MAX_TURN_CHARS:], choices])
    pool = shared_pool(os.getpid())
    reply = await asyncio.wrap_future(pool.submit("choice", texts))
    if reply.status != "answered":
        return "", "the answer cannot be read"
    letter, reason = json.loads(reply.text)
    return letter, reason


class ChoiceVerifier:
    """Compares the letter an answer settles on with the gold letter."""

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict: `no_answer`, without reward, where no option is chosen.

        Raises:
            VerifierError: The task's gold answer is none of its options' letters, or it
                has more options than there are letters.
        """
        if len(task.choices) > len(LETTERS):
            raise VerifierError(
                f"task {shown(task.id)}: it has {len(task.choices)} choices;"
                f" {len(LETTERS)} have a letter."
            )
        # A list: of a text, a part of several letters is in it, too.
        valid = list(LETTERS[: len(task.choices)])
        if task.answer not in valid:
            raise VerifierError(
                f"task {shown(task.id)}: the answer {shown(task.answer)} is no letter"
                f" of its {len(task.choices)} choices."
            )
        letter, reason = await _choice(text, task.choices)
        if not letter:
            return judged("no_answer", reason=reason)
        is_right = letter == task.answer
        return judged("correct" if is_right else "wrong", extracted=letter)
