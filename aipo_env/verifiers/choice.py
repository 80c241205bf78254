"""Ground truth for multiple choice: which option an answer settles on, if on any."""

import asyncio
import json
import os
import re
from unicodedata import normalize

from aipo_env.errors import VerifierError, shown
from aipo_env.records import Task, Verdict
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.choice_claims import Claim, read_place
from aipo_env.verifiers.choice_doubts import TAKEN_BACK, fault_behind
from aipo_env.verifiers.choice_lines import (
    SEVERAL,
    letter_on_line,
    of_lone_line,
    of_only_option,
)
from aipo_env.verifiers.choice_options import (
    LETTERS,
    blanked,
    letters_of,
    without_dress,
)
from aipo_env.verifiers.choice_places import (
    ChoicePlace,
    choice_places,
    conclusions,
    in_latin,
    is_open_ended,
)
from aipo_env.verifiers.choice_questions import (
    before_heading,
    before_options,
    has_several_questions,
    own_turn,
)
from aipo_env.verifiers.choice_undecided import (
    are_left_open,
    is_by_case,
    last_case,
)
from aipo_env.verifiers.choice_verdicts import of_verdicts
from aipo_env.verifiers.extract import MAX_TURN_CHARS, joins, without_thinking
from aipo_env.verifiers.workers import shared_pool

MAX_ANSWER_CHARS = 10_000
"""Only this much of the end of an answer is read."""
MAX_PLACES = 64
"""Only so many of the places that may hold the answer are read, the last ones."""
MAX_INLINE_CHOICE = 2_000
"""Longer texts are read in a worker process."""

_STRUCK = re.compile(r"~~(?=\S)[^~\n]{1,200}~~")
"""What Markdown strikes out."""
_QUOTATION = re.compile(r"^[ ]{0,3}>[^\n]{0,400}", re.MULTILINE)
_QUOTED_LETTER = re.compile(
    r"(?<![A-Za-z'’])(?:answer|option|choice|it['’]s|is|clearly)\W{1,4}([A-J])(?![A-Za-z'’])"
)
_SENTENCE = re.compile(r"[.!?\n]\s")
_NEXT_KEY = re.compile(r"""["\]}]\s{0,9},\s{0,9}"\Z""")
"""What ends a value of JSON, and begins the next key."""
_CLOSE = re.compile(
    r"""
    [)\]\s]{0,9}
    (?: [.!,;。] | $ | \n | \( | [–—] | (?: fits | works | matches ) \b
      (?! \s (?: too | also | as\ well | only | if | when | just )\b )
    | because\b | since\b | as\b | rather\b | not\b )
    """,
    re.VERBOSE,
)
"""What may follow an option that a last line concludes."""
_DENIED = "an option is denied"


def read_choice(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return the letter an answer settles on, or "" and why it settles on none.

    Places that may name an option are read in their order, whatever marks them: boxes
    and answer tags, what follows "the answer is", a letter that "is correct". The last
    one that names an option decides; without any, a last line that is nothing but an
    option, or a first one, or the one option of a list that is judged to be right. A
    name ends with its clause: reasons and other options behind it are no part of it.
    Two letters, a denial, a letter outside the options, a letter beside another
    option's text, a last box that never closes, an answer taken back afterwards, and a
    last line that comes to another option settle nothing. What a reply writes from
    another question on does not count.
    """
    text = normalize("NFKC", without_thinking(text)[-MAX_ANSWER_CHARS:])
    # Some characters are many when normalised.
    text = in_latin(_STRUCK.sub(_blanks, text[-MAX_ANSWER_CHARS:].strip()))
    if is_open_ended(text):
        return "", "the last box or answer tag never closes"
    text = _without_others(text)
    text = before_heading(own_turn(text), choices)
    letter, fault = _read(text, choices)
    head, is_own = before_options(text, choices)
    first = _read(head, choices)[0] if head != text else ""
    if first and not is_own:
        return first, ""
    # It may be the task's question, told again, or another one with these options.
    if first and letter not in ("", first):
        return "", SEVERAL
    return letter, fault


def _without_others(text: str) -> str:
    """Return a text without block quotations that name different options.

    They are of several people; one alone may be the reply's own way to set its answer
    apart.
    """
    letters = {
        letter
        for quotation in _QUOTATION.findall(text)
        for letter in _QUOTED_LETTER.findall(quotation)
    }
    return _QUOTATION.sub(_blanks, text) if len(letters) > 1 else text


def _read(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return what a reply to one question settles on, or "" and why on nothing."""
    if has_several_questions(text):
        return "", "several questions are answered"
    places = choice_places(text)[-MAX_PLACES:]
    letter, fault, end = _settled(text, places, choices)
    ends = _letters_behind(text, end, choices) if letter else set()
    if ends - {letter}:
        return "", SEVERAL
    if letter and _is_left_open(text, places, letter, end, choices):
        return "", SEVERAL
    if letter:
        return letter, ""
    concluded, fault_of_end = _concluded(text, choices)
    if fault:
        # What a last line comes to, after a denial or a taking back, is an answer.
        is_over = fault in (_DENIED, TAKEN_BACK)
        return (concluded, "") if concluded and is_over else ("", fault)
    lone, fault = of_lone_line(text, choices)
    judged, fault_of_list = of_verdicts(text, choices)
    if judged:
        is_alone = {lone, concluded} <= {"", judged}
        return (judged, "") if is_alone else ("", SEVERAL)
    if lone or fault == SEVERAL:
        return lone, fault
    letter = concluded or of_only_option(text, choices)
    fault = fault or fault_of_end or fault_of_list or "no option was chosen"
    return letter, "" if letter else fault


def _letters_behind(text: str, end: int, choices: tuple[str, ...]) -> set[str]:
    """Return the options to which a last line behind an answer comes."""
    line_start = text.rstrip().rfind("\n") + 1
    if line_start < end:
        return set()
    lone = letter_on_line(text[line_start:], choices)
    concluded, _ = _concluded(text, choices)
    return {lone, concluded} - {""}


def _is_left_open(
    text: str,
    places: list[ChoicePlace],
    letter: str,
    end: int,
    choices: tuple[str, ...],
) -> bool:
    """Return whether an answer stands beside another one, and neither is chosen.

    Both are said to stand, or each is that of a case.
    """
    plain = blanked(text)
    claimed = [
        (place.start, read_place(text, plain, place, choices).letter)
        for place in places
        if place.begin < end
    ]
    claimed = [(start, each) for start, each in claimed if each]
    if {each for _, each in claimed} <= {letter}:
        return False
    if are_left_open(plain[: claimed[0][0]], plain[end:]):
        return True
    # What the last line says again is a decision.
    case = last_case(plain[:end])
    if case is None or _letters_behind(text, end, choices):
        return False
    of_case = [each for start, each in claimed if start >= case]
    return len(of_case) == 1 and claimed[-2][1] != letter


def _settled(
    text: str, places: list[ChoicePlace], choices: tuple[str, ...]
) -> tuple[str, str, int]:
    """Return what the last place says that speaks of an option.

    Also why it says none, and where what it says ends. Places before it that "or" or a
    comma joins to it are read with it.
    """
    plain = blanked(text)
    settled = Claim()
    next_start = 0
    denied = ""
    mentioned = ""
    listed: set[str] = set()
    for place in reversed(places):
        claim = read_place(text, plain, place, choices)
        if settled.letter:
            gap_start = claim.end or place.end
            if claim.fault and _SENTENCE.search(plain, place.begin, place.end):
                break
            # One value of JSON is not joined to the next.
            if _NEXT_KEY.search(text, place.begin, next_start + 1):
                break
            gap = plain[gap_start:next_start]
            # One on each line are a list of options, if they are more than two.
            if not gap.strip() and "\n" in gap:
                listed |= {claim.letter} - {""}
                if len(listed | {settled.letter}) > 2:
                    return "", SEVERAL, 0
                next_start = place.start
                continue
            # Side by side they are joined as well.
            is_beside = not gap.strip()
            if not is_beside and not joins(gap.lstrip(")] ")):
                break
            if claim.fault or claim.letter not in ("", settled.letter):
                return "", SEVERAL, 0
        elif claim.fault:
            return "", claim.fault, 0
        elif claim.letter:
            if claim.letter in denied:
                return "", _DENIED, 0
            if mentioned not in ("", claim.letter):
                return "", "another option is spoken of afterwards", 0
            fault = _fault_behind(claim, plain, choices)
            if fault:
                return "", fault, 0
            settled = claim
        denied += claim.denied
        mentioned = mentioned or claim.mentioned
        next_start = place.start
    if not settled.letter and denied:
        return "", _DENIED, 0
    return settled.letter, "", settled.end


def _fault_behind(claim: Claim, plain: str, choices: tuple[str, ...]) -> str:
    """Return why what follows a claim undoes it, "" if it does not."""
    letters = LETTERS[: len(choices)]
    own_text = without_dress(choices[letters.index(claim.letter)])
    return fault_behind(claim.letter, own_text, letters, plain[claim.end :])


def _concluded(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return what the last line of a reply comes to, where nothing marks an answer.

    An option must end its clause, and no other may be concluded beside it.
    """
    plain = blanked(text)
    found: set[str] = set()
    fault = ""
    for place in conclusions(text)[-MAX_PLACES:]:
        claim = read_place(text, plain, place, choices)
        if claim.fault:
            return "", claim.fault
        if not claim.letter:
            continue
        is_own_text = letters_of(text[claim.end : place.end], choices) == claim.letter
        if not is_own_text and not _CLOSE.match(plain, claim.end):
            continue
        fault = _fault_behind(claim, plain, choices)
        if fault == TAKEN_BACK:
            found.clear()
        elif fault:
            return "", fault
        else:
            found.add(claim.letter)
    if len(found) > 1 or (found and is_by_case(plain)):
        return "", SEVERAL
    return "".join(found), "" if found else fault


def _blanks(mark: re.Match[str]) -> str:
    return " " * len(mark[0])


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
