"""Which part of a reply is its answer, for whoever reads one: graders, guards, golds.

The last mark decides: a box, an answer tag, or words like "the answer is". What it
says is read by `reading/`: a denial settles nothing, nor does what is taken back
afterwards, what is never closed, or what is not understood. Words that are not
understood leave an earlier box as it is. What the policy thought does not count.

All of it is linear in the text, whatever the text: blanks are brought to one apiece
first, so that patterns may say `\\s*` one after another, and what stands between two
marks is found by their places, not by a pattern.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from aipo_env.verifiers.reading.cues import MAX_CUES, Mark, read_text, stated_marks
from aipo_env.verifiers.reading.prose import formula_end
from aipo_env.verifiers.reading.retraction import taken_back
from aipo_env.verifiers.reading.sentence import Said, is_bare, read_end

MAX_TURN_CHARS = 200_000
"""Only this much of the end of a reply is read."""
MAX_FORMULAS = 64
"""Only so many formulas at the end of a sentence are read."""
MAX_MARKS = 64
"""Only so many of the places that may hold the answer are read, the last ones."""
_MAX_GAP_CHARS = 200
"""Only this much of what stands between two values is read."""
_MAX_BEFORE_CHARS = 80
"""Only this much of what stands before a mark is read."""
_MAX_REPORT_CHARS = 20
"""Only this much before a clause is searched for whoever it quotes."""
_MAX_WORDS_CHARS = 80
"""Only this much of the words that take an answer back is told."""
_MAX_QUOTED_CHARS = 200
"""Only this much of a text is kept to show what was read."""

Place = tuple[int, int, str]
"""Start and end of a marked answer in a text, and what it says."""


class Reading(NamedTuple):
    """What was read of a reply.

    Args:
        answer: The answer; None where there is none.
        place: Where it stands: "box", "tag", "line" or, where nothing marks an answer,
            "end".
        text: The words that decide.
        reason: Why there is no answer.
    """

    answer: str | None
    place: str
    text: str = ""
    reason: str = ""


_BLANKS = re.compile(r"\s{2,}")
_THOUGHT_BEGINS = (
    "<think>",
    "<thinking>",
    "<reasoning>",
    "<thought>",
    "<|begin_of_thought|>",
    "<|channel|>analysis<|message|>",
    "<|channel|>commentary<|message|>",
)
_THOUGHT_ENDS = (
    "</think>",
    "</thinking>",
    "</reasoning>",
    "</thought>",
    "<|end_of_thought|>",
    "<|channel|>final<|message|>",
    "assistantfinal",
)
"""The last is what is left of the marks of a channel where special tokens are not."""
_BARE_THOUGHT = re.compile(r"\s{0,9}analysis(?=[A-Z])")
"""The same of a thought: nothing parts the channel's name from what is thought."""
_BRACE = re.compile(
    r"""
      \\[{}]                                       # \{ groups nothing
    | \\(?: f?box(?:ed)? | framebox ) \s* \{       # \boxed{, \box{, \fbox{
    | [{}]
    """,
    re.VERBOSE,
)
_BARE_BOX = re.compile(
    r"""
    \\(?: f?boxed | fbox ) (?![A-Za-z]) [ ]?
    (?: (?P<value> [-+]?[0-9][0-9,]*(?:\.[0-9]+)? (?![0-9A-Za-z])
        |   \\[dt]?frac\{[^{}]{1,40}\}\{[^{}]{1,40}\} )
    |   (?P<letter> [A-Za-z]) (?= [ ]? (?: \$ | \\[)\]] | \. | \Z ) )
    )
    """,
    re.VERBOSE,
)
"""A box without braces: `\\boxed 42`."""
_DRESS = re.compile(
    r"""
      [\s${}]
    | \\ (?: [\[\]();, ] | q?quad | text )    # \[, \), \; and other blanks
    """,
    re.VERBOSE,
)
"""What dresses a formula and says nothing."""
_JOINT = re.compile(
    r"""
    (?: [A-Za-z]+ [ ] (?=and|or) )?                          # 3 apples and
    (?: for [ ] (?: part | case ) [ ] \(?\w\)? [ ] (?=and) )?   # 3 for part (a) and
    (?: [,;/] | and | or )
    (?: [ ] (?: and | or | else | also | maybe | perhaps | possibly ) \b )*
    (?: [ ] \\?[A-Za-z]+ (?: _\w+ )? (?: \(\w\) )? [ ]?= )?    # and x_2 =, or f(n) =
    |
    (?: [-•*] | \(? [0-9a-z] [.)] ) (?: [ ] [a-z] (?: _\w+ )? [ ]? = )?   # - x =
    |
    (?i: (?: the[ ] )? (?: second | third | fourth | other )
         [ ] (?: root | solution | zero | value | one ) [ ]? (?: : | is | = ) )
    """,
    re.VERBOSE,
)
"""What between two boxes makes them one answer."""
TAG = re.compile(
    r"""
    (?i: <(?: final[ _-]?)?answer> )
    ( (?: (?! (?i: </?\ ?(?: final[ _-]?)?answer\ ?> ) ) . )* )
    (?i: </\ ?(?: final[ _-]?)?answer\ ?> )
    """,
    re.VERBOSE | re.DOTALL,
)
_TAG_MARK = re.compile(
    r"<(?P<closing>/?)[ ]?(?:final[ _-]?)?answer[ ]?>(?![ ]?tags?\b)", re.IGNORECASE
)
_FENCE = re.compile(r"\$\$|\$|\\[()\[\]]")
_CLOSED_BY = {"$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
"""What opens a formula in a sentence, and what closes it."""
_TURN_END = re.compile(
    r"""
    (?: <\| (?: im_end | im_start | endoftext | end_of_text | eot_id | return | user
        | end | start_header_id ) \|>
      | </s> | <end_of_turn> | \[INST\] ) .*
    """,
    re.VERBOSE | re.DOTALL,
)
"""What ends a turn for some tokenizers, and whatever follows."""
_EMOJI = re.compile(
    "[\u2600-\u274b\u274d-\u27bf\u2b00-\u2bff\ufe0f\u200d\U0001f000-\U0001faff]+"
)
"""Pictures; not the cross, which says that something is wrong."""
_BOLD = re.compile(
    r"""
      (?<![\w)\]}]) \*\*+ | \*\*+ (?![\w(\\])
    | (?<!\w) __ (?=\S) | (?<=\S) __ (?!\w)
    | ```[a-z]{0,12} | `
    """,
    re.VERBOSE,
)
"""Marks of bold type and code; `2**3` is a power."""

_TYPE_TAG = re.compile(r"</?(?:b|i|u|em|strong|code|p|mark)>", re.IGNORECASE)
"""Tags that set a text in another type."""

_BEFORE_BOX = re.compile(
    r"""
    (?: \bnot | n['’]t | \bcannot | \bnever | \bneither | \bnor | \brather[ ]than
      | \binstead[ ]of | \bother[ ]than | \banything[ ]but | \bexcept | \bunlike
      | \bdiffers?[ ]from | \\neq? | ≠
      | \b(?: wrong | incorrect | naive | tempting | mistaken | false ) [ ]
        (?: answer | result | value | guess )
        (?: [ ](?: is | was | of | \w{1,6}[ ]be ) | : )?
      | \b(?: mistake | error | trap ) [ ](?: is | was | would[ ]be | gives | of ) )
    [ ]? (?: (?: equal | be | a | an | the | to | just | simply | really ) [ ] ){0,3}
    [ $\\(\[{*"'“]{0,6} \Z
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What before a box says that it is not the answer."""
_BEHIND_BOX = re.compile(
    r"""
    [ $)\]\\}*_.]{0,6} (?:
        (?P<or> [ ,]{0,2} (?: \\? text\{ [ ]? )? or [ }]
            (?: maybe[ ] | perhaps[ ] | possibly[ ] | even[ ] )?
            [ }$\\({\[-]{0,4} [0-9] )
      | (?P<scale> percent(?:age)? | pct | \\?% | per[ ]cent | thousand | million
            | billion | trillion | dozen ) (?![A-Za-z])
      | (?P<asked> [?\uff1f] )
      | (?P<ratio> (?: : | [ ]:[ ] ) [$\\]{0,2} [0-9] )
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What behind a box changes what it says."""
_TIED_BEFORE = re.compile(
    r"""
    (?: [0-9^+] | (?<! - ) - | \\ (?: d?frac | sqrt ) \{
      | \\ (?: cdot | times | div ) [ ]? ) \Z
    """,
    re.VERBOSE,
)
"""What right before a box makes it part of a formula: `2\\boxed{12}`."""
_TIED_BEHIND = re.compile(
    r"""
    [ ]? (?: \^ | [+*/] [ ]? [0-9A-Za-z\\(] | - [ ]? [0-9]
      | \\ (?: cdot | times | div | pm ) (?![a-z]) )
    """,
    re.VERBOSE,
)
"""The same behind a box: `\\boxed{12}^2`."""
_REST_OF_FORMULA = re.compile(r"[^$\n]{0,60}?=")
"""What makes a box the gap in an equation: `3 + \\boxed{4} = 7`."""
_TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm|textnormal)[ ]?\{([^{}]*)\}"
)
_EXPLAINED = re.compile(
    r"\b(?:because|since|rather than|instead of)\b|[,(]? ?\bnot [-$0-9]"
)
_SHOUTED = re.compile(r"[0-9.,]+!+")
_HASHES = re.compile(r"(?:^|\n|(?<=[.!?])) ?#### ?[^#\s]")
"""What states an answer wherever it stands: `#### 42`."""
_PROBLEM = re.compile(
    r"""
    (?: ^ | \n ) [ #*>]{0,8}
    (?: (?: similar | next | another | new | bonus | extra | follow[ -]?up
        | practi[cs]e ) [ ] )?
    (?: (?: question | problem | exercise | q | human | user | instruction | task
          | aufgabe | frage | pregunta | problema | exercice
          | задача | вопрос | 问题 | 題目 | 题目 | 問題 )
        (?P<number> [ ]? \#? [0-9][0-9.]{0,6} )?
      | bonus )
    (?: [*_ ]{0,4} [:\uff1a] | [*_. ]{0,4} (?=\n) | (?<=[0-9.]) [ ] )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What begins a problem: `Question:`, `## Similar problem`, `Exercise 4.8.`"""
_STRUCK_OUT = re.compile(r"~~[^~\n]{1,200}~~")
_TIMES_TEN = re.compile(r"(?<=[0-9]) ?[xX] ?(?=10 ?(?:\^|\*\*|[⁰¹²³⁴-⁹⁻]))")
"""A letter for the sign of multiplication: `3 x 10^8`."""
_DIGIT_OF_ANY_SCRIPT = re.compile(r"(?![0-9])\d")
_LETTER = re.compile(r"[A-Za-z]{2}")
_FIRST_WORD = re.compile(r"[A-Za-z'’]+[ :,]")
_DIGIT = re.compile(r"[0-9]")
_BLANK = re.compile(r"\s+")


# Marks


def boxes(text: str) -> list[Place]:
    """Return every balanced `\\boxed{…}` that holds no other, in order."""
    places, _ = _scan_boxes(text)
    return places


def _scan_boxes(text: str) -> tuple[list[Place], int]:
    """Return the balanced boxes, and where the last begins that is not; -1 if none."""
    first = text.find("box")
    if first < 0:
        return [], -1
    open_braces: list[tuple[int, int, bool]] = []
    places: list[Place] = []
    # Braces before the first box are none of ours; `\frame` may stand before "box".
    start_of_box = max(first - len("\\frame"), 0)
    for brace in _BRACE.finditer(text, start_of_box):
        mark = brace[0]
        if mark in ("\\{", "\\}"):
            continue
        if mark.endswith("{"):
            is_box = len(mark) > 1
            open_braces.append((brace.start(), brace.end(), is_box))
        elif open_braces:
            start, inner, is_box = open_braces.pop()
            # A box that began later and is closed already stands inside this one.
            holds_another = bool(places) and places[-1][0] > start
            if is_box and not holds_another:
                content = text[inner : brace.start()].strip()
                places.append((start, brace.end(), content))
    never_closed = [start for start, _, is_box in open_braces if is_box]
    return places, max(never_closed, default=-1)


def last_boxed(text: str) -> str | None:
    """Return what stands in the last balanced `\\boxed{…}`, or None."""
    places = boxes(text[-MAX_TURN_CHARS:])
    return places[-1][2] if places else None


def formulas(sentence: str) -> list[Place]:
    """Return the formulas between dollar signs, `\\(…\\)` or `\\[…\\]`, in order.

    None is empty.
    """
    places: list[Place] = []
    # Searching to the end for each of many open marks would take quadratic time.
    never_closed: set[str] = set()
    mark = _FENCE.search(sentence)
    while mark:
        following = mark.start() + 1
        closing = _CLOSED_BY.get(mark[0], "")
        if closing and closing not in never_closed:
            inner = mark.end()
            end = sentence.find(closing, inner + 1)  # `$$$$` holds nothing
            if end < 0:
                never_closed.add(closing)  # nor is what opens after this
            else:
                following = end + len(closing)
                content = sentence[inner:end]
                places.append((mark.start(), following, content))
        mark = _FENCE.search(sentence, following)
    return places


def joins(gap: str) -> bool:
    """Return whether what stands between two values makes them one answer.

    "and", a comma, `y =` do.
    """
    bare = _DRESS.sub(" ", gap[:_MAX_GAP_CHARS])
    words = " ".join(bare.replace(",", " , ").split())
    return _JOINT.fullmatch(words) is not None


def one_blank(text: str) -> str:
    """Return a text without neighbouring blanks: a run becomes a line break or a blank.

    It becomes a line break if it holds one.
    """
    return _BLANKS.sub(lambda run: "\n" if "\n" in run[0] else " ", text)


def without_thinking(text: str) -> str:
    """Return what follows the last thought.

    Of a thought that never ended, return what came before it.
    """
    begin = max(text.rfind(mark) for mark in _THOUGHT_BEGINS)
    # A chat template may have written the opening mark: the closing one is enough.
    end, mark = max((text.rfind(mark), mark) for mark in _THOUGHT_ENDS)
    if end < 0 and _BARE_THOUGHT.match(text):
        return ""
    if begin > end:
        text = text[:begin]
    return text if end < 0 else text[end + len(mark) :]


# Reading


def extract(text: str, *, unmarked: bool = False) -> Reading:
    """Return what was read of a reply.

    Args:
        unmarked: Take the last expression of a reply that marks no answer at all.
    """
    text = _prepared(text[-MAX_TURN_CHARS:])
    marks = _marks(text)
    if marks:
        next_problem = _next_problem(text, marks)
        if next_problem:
            text = text[:next_problem]
            marks = _marks(text)
    denied: set[str] = set()
    fault = ""
    while marks:
        mark = marks.pop()
        said = mark.said
        if said.kind == "nothing" or _is_beside_a_box(mark, marks):
            continue
        quoted = text[mark.start : max(said.end, mark.start)][:_MAX_QUOTED_CHARS]
        if said.kind != "denied":
            fault = _fault_of(text, mark, marks, denied)
            answer = None if fault else said.value
            return Reading(answer, mark.kind, quoted, fault)
        denied.add(_key(said.value))
        fault = said.reason
    if fault:
        return Reading(None, "line", quoted, fault)
    return _unmarked(text) if unmarked else Reading(None, "end")


def _next_problem(text: str, marks: list[Mark]) -> int:
    """Return where a reply goes on with a problem of its own making; 0 if it does not.

    It has answered by then. Problems that are numbered from before the first answer on
    are parts of one.
    """
    hashes = _HASHES.search(text)
    first_answer = min(marks[0].start, hashes.start() if hashes else len(text))
    is_numbered = False
    for heading in _PROBLEM.finditer(text):
        if heading.start() < first_answer:
            is_numbered = is_numbered or heading["number"] is not None
        elif not (is_numbered and heading["number"]):
            return heading.start()
    return 0


def _is_beside_a_box(mark: Mark, before: list[Mark]) -> bool:
    """Return whether words are less clear than a box or tag that stands before them."""
    if mark.kind != "line" or mark.said.kind == "denied":
        return False
    is_clear = mark.said.kind == "value" and (mark.said.is_direct or mark.is_final)
    return not is_clear and any(other.kind != "line" for other in before)


def _fault_of(text: str, mark: Mark, before: list[Mark], denied: set[str]) -> str:
    """Return why what the last mark says is no answer; "" if it is one.

    Args:
        before: The marks before it.
        denied: Keys of values that are denied after it.
    """
    said = mark.said
    if said.kind == "unclear":
        return said.reason
    key = _key(said.value)
    others = {_key(other.said.value) for other in before if other.said.kind == "value"}
    if mark.is_case and others - {key}:
        return "it holds in one case of several"
    if key in denied:
        return "it is denied afterwards"
    words = taken_back(text, said.value_end or said.end, said.value)
    return f"it is taken back: {words[:_MAX_WORDS_CHARS]!r}" if words else ""


def marked_answer(text: str) -> str | None:
    """Return what a text marks as its answer, as a reply does; None if it marks none.

    "" where it does, and what it says is not understood.
    """
    reading = extract(text)
    if reading.place == "end":
        return None
    return reading.answer or ""


# The rollouts of a group have the same gold.
@lru_cache(1024)
def read_gold(text: str) -> str:
    """Return the answer that a gold gives, which may be a whole solution.

    Of a text that marks no answer, that is all of it.
    """
    answer = marked_answer(text)
    return text.strip() if answer is None else answer


def _prepared(text: str) -> str:
    """Return a reply without its thoughts and ornaments."""
    text = _TURN_END.sub("", without_thinking(text))
    if not text.isascii():
        text = _DIGIT_OF_ANY_SCRIPT.sub(_ascii_digit, _EMOJI.sub("", text))
    text = _BOLD.sub("", text.replace("\t", " ").replace("\u00a0", " "))
    if "</" in text:
        text = _TYPE_TAG.sub("", text)
    if "~~" in text:
        text = _STRUCK_OUT.sub("", text)
    text = _TIMES_TEN.sub(" × ", one_blank(text))
    if "box" in text:
        text = _BARE_BOX.sub(_braced, text)
    return text


def _ascii_digit(digit: re.Match[str]) -> str:
    return str(unicodedata.digit(digit[0]))


def _braced(box: re.Match[str]) -> str:
    return f"\\boxed{{{box['value'] or box['letter']}}}"


def _key(value: str) -> str:
    """Return what two spellings of one value have in common."""
    return _BLANK.sub("", value).strip("$*_\"'.,()\\")


def _unmarked(text: str) -> Reading:
    """Return what the last sentence of a reply without marks says."""
    text = text.rstrip()
    mark = Mark(0, read_end(text))
    fault = _fault_of(text, mark, [], set())
    is_value = mark.said.kind == "value" and not fault
    answer = mark.said.value if is_value else None
    return Reading(answer, "end", text[-_MAX_QUOTED_CHARS:], fault or mark.said.reason)


def _marks(text: str) -> list[Mark]:
    """Return the last places that may hold the answer, in order."""
    places, open_box = _scan_boxes(text)
    tags, open_tag = _tags(text)
    marks = [*_boxed(text, places), *_tagged(text, tags)]
    last_start = max((start for start, _, _ in [*places, *tags]), default=-1)
    if open_box > last_start:
        marks.append(Mark(open_box, _never_closed(text, "box"), "box"))
    if open_tag > last_start:
        marks.append(Mark(open_tag, _never_closed(text, "tag"), "tag"))
    marks += _stated(text, tags, open_box, open_tag)
    marks.sort(key=lambda mark: mark.start)
    return marks[-MAX_MARKS:]


def _never_closed(text: str, what: str) -> Said:
    return Said("unclear", "", len(text), f"the last {what} is never closed")


def _tags(text: str) -> tuple[list[Place], int]:
    """Return the answer tags, and where the last begins that is not closed; or -1."""
    places: list[Place] = []
    opened: re.Match[str] | None = None
    for mark in _TAG_MARK.finditer(text):
        if not mark["closing"]:
            opened = mark
        elif opened is not None:
            content = text[opened.end() : mark.start()]
            places.append((opened.start(), mark.end(), content))
            opened = None
    return places, -1 if opened is None else opened.start()


def _boxed(text: str, places: list[Place]) -> Iterator[Mark]:
    """Yield what groups of boxes say, which a comma, "and" or their like join."""
    places = places[-MAX_MARKS:]
    first = 0
    for last, (_, end, _) in enumerate(places):
        is_end = last + 1 == len(places)
        if not is_end and joins(text[end : places[last + 1][0]]):
            continue
        group = places[first : last + 1]
        start = group[0][0]
        contents = [content for _, _, content in group]
        yield Mark(start, _read_boxes(text, start, end, contents), "box")
        first = last + 1


def _read_boxes(text: str, start: int, end: int, contents: list[str]) -> Said:
    if not all(contents):
        return Said("unclear", "", end, "the box is empty")
    answer = ", ".join(map(_read_box, contents))
    before = text[max(0, start - _MAX_BEFORE_CHARS) : start]
    if _BEFORE_BOX.search(before):
        return Said("denied", answer, end, "it is denied")
    if _is_tied(before, text, end):
        return Said("unclear", answer, end, "the box is part of a formula")
    behind = _BEHIND_BOX.match(text, end)
    if behind and behind["or"]:
        return Said("unclear", answer, behind.end(), "an alternative is named")
    if behind and behind["asked"]:
        return Said("unclear", answer, behind.end(), "it is asked")
    if behind and behind["ratio"]:
        return Said("unclear", answer, behind.end(), "it is part of a ratio")
    if behind and behind["scale"]:
        return Said("value", f"{answer} {behind['scale']}", behind.end(), "", True)
    return Said("value", answer, end, "", True)


def _is_tied(before: str, text: str, end: int) -> bool:
    """Return whether a box is but an operand of a formula, and no gap in an equation.

    Args:
        before: What stands before the box.
        end: Where the box ends, in the text.
    """
    if _REST_OF_FORMULA.match(text, end):
        return False
    marks = _TIED_BEFORE.search(before), _TIED_BEHIND.match(text, end)
    return any(mark is not None for mark in marks)


def _read_box(content: str) -> str:
    """Return a box's content, or the value of the sentence that it is.

    What begins with a formula is one, whatever words are in it, unless they explain it.
    """
    flat = one_blank(_TEXT_COMMAND.sub(r"\1", content)).strip()
    if flat == content and not _LETTER.search(flat):
        return content
    if not _DIGIT.search(flat):
        return content
    begins_with_word = _FIRST_WORD.match(flat) is not None
    is_sentence = begins_with_word and formula_end(flat, 0, len(flat)) == 0
    is_sentence = is_sentence or _TEXT_COMMAND.fullmatch(content) is not None
    if not is_sentence and not _EXPLAINED.search(flat):
        return content
    said = read_text(flat)
    return said.value if said.kind == "value" else content


def _tagged(text: str, tags: list[Place]) -> Iterator[Mark]:
    for start, end, content in tags[-MAX_CUES:]:
        yield Mark(start, _read_tag(content, end), "tag")


def _read_tag(content: str, end: int) -> Said:
    """Return what an answer tag says: a formula, or a sentence."""
    bare = content.strip()
    if not bare:
        return Said("unclear", "", end, "the tag is empty")
    if _SHOUTED.fullmatch(bare):
        return Said("unclear", bare, end, "it is a factorial, or an exclamation")
    if bare[0] in "~≈":
        return Said("unclear", bare, end, "the value is said to be near only")
    if is_bare(bare) or not _DIGIT.search(bare):
        return Said("value", bare, end, "", True)
    said = read_text(bare)
    if said.kind == "nothing":
        return Said("unclear", bare, end, "it is not understood")
    return said._replace(end=end)


def _stated(
    text: str, tags: list[Place], open_box: int, open_tag: int
) -> Iterator[Mark]:
    """Yield what words state, but for those in a box or tag that is never closed."""
    end_of_text = len(text) if open_tag < 0 else open_tag
    box_line_end = text.find("\n", open_box) if open_box >= 0 else -1
    box_line_end = len(text) if box_line_end < 0 else box_line_end
    last_tags = tags[-MAX_CUES:]

    def limit_of(start: int) -> int:
        if start >= end_of_text or 0 <= open_box < start < box_line_end:
            return start
        for tag_start, tag_end, _ in reversed(last_tags):
            if tag_start < start < tag_end:
                return tag_end
        return end_of_text

    yield from stated_marks(text, limit_of)
