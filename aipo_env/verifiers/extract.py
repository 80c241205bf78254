"""Which part of a reply is its answer.

The last group of boxes decides, else the last answer tag, else the last line that says
"answer". What the policy thought does not count, and neither do earlier tries.

All of it is linear in the text, whatever the text: blanks are brought to one apiece
first, so that patterns may say `\\s*` one after another, and what stands between two
marks is found by their places, not by a pattern.
"""

import re

MAX_TURN_CHARS = 200_000
"""Only this much of the end of a reply is read."""
MAX_FORMULAS = 64
"""Only so many formulas at the end of a sentence are read."""
_MAX_FINAL_CHARS = 99
"""Only so far before "answer" the word "final" is looked for."""
_MAX_GAP_CHARS = 200
"""Only this much of what stands between two values is read."""
_MAX_DENIAL_CHARS = 60
"""Only this much of what stands before a value is searched for a denial."""

Place = tuple[int, int, str]
"""Start and end of a marked answer in a text, and what it says."""

_BLANKS = re.compile(r"\s{2,}")
_THOUGHT_BEGINS = (
    "<think>",
    "<thinking>",
    "<reasoning>",
    "<thought>",
    "<|begin_of_thought|>",
)
_THOUGHT_ENDS = (
    "</think>",
    "</thinking>",
    "</reasoning>",
    "</thought>",
    "<|end_of_thought|>",
)
_BRACE = re.compile(
    r"""
      \\[{}]                        # \{ groups nothing
    | \\f?box(?:ed)? \s* \{         # \boxed{, \box{, \fbox{
    | [{}]
    """,
    re.VERBOSE,
)
_MARK = re.compile(
    r"""
      [\s${}]
    | \\ (?: [\[\]();, ] | q?quad | text )    # \[, \), \; and other blanks
    """,
    re.VERBOSE,
)
_JOINT = re.compile(
    r"""
    (?: [A-Za-z]+ [ ] (?=and|or) )?                          # 3 apples and
    (?: [,;/] | and | or )
    (?: [ ] (?: and | or | else | also | maybe | perhaps | possibly ) \b )*
    (?: [ ] \\?[A-Za-z]+ (?: _\w+ )? (?: \(\w\) )? [ ]?= )?    # and x_2 =, or f(n) =
    """,
    re.VERBOSE,
)
TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.S)
_LINE = re.compile(
    r"""
    (?: \b (?i:answer) \b [\s*_]* (?: is | are | : | = | equals )
        [\s*_]* (?: : [\s*_]* )?                # **Answer:** 5, the answer is: 5
    |   \b (?i:answer) \s+ (?= \$ | \\\( )      # the answer $5$
    |   (?: 答案 | 答え ) \s* (?: 是 | 为 | 為 | は )? \s* [:\uff1a]?
    )
    \s* (\S[^\n]*)
    """,
    re.VERBOSE,
)
_FINAL = re.compile(r"(?i:final)\s*\Z")
_FENCE = re.compile(r"\$\$|\$|\\[()\[\]]")
_CLOSED_BY = {"$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
"""What opens a formula in a sentence, and what closes it."""
_VALUE = r"""
    [-+]? (?: [$€£¥] \s* )?
    (?: [0-9][0-9,]* (?: \.[0-9]+ )? | \.[0-9]+ )    # 1,234.5, .5
    (?: \s* / \s* [0-9]+ )?                          # 3/4
    (?: \s* % )?
"""
"""A number in prose, to stand in verbose patterns."""
_VALUES = re.compile(
    rf"{_VALUE} (?: \s* (?: , | ; | \band\b | \bor\b )+ \s* {_VALUE} )*",  # 1, 2 and 3
    re.VERBOSE,
)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z']{2,}")
_DIGIT = re.compile(r"[0-9]")
_SENTENCE_END = re.compile(r"(?<=[\w$)}])\.\s+(?=[A-Z])")
_CLOSING = re.compile(
    r"""
    (?: I[ ]hope[ ]it[ ]is[ ]correct
    |   <\|im_(?:end|start)\|>         # what ends a turn for some tokenizers
    |   <\|endoftext\|>
    |   </s>
    )
    .* $
    """,
    re.VERBOSE | re.DOTALL,
)
_NEGATION = re.compile(
    r"""
    (?: \bnot | \bcannot | n't | \bneither | \bnor | \bnever
    |   \bdiffers?[ ]from
    |   \\neq?
    )
    \s* (?: equal \s* (?:to)? | be | a | an | the )? \s* $    # is not equal to
    """,
    re.VERBOSE,
)


def boxes(text: str) -> list[Place]:
    """Return every balanced `\\boxed{…}` that holds no other, in order."""
    first = text.find("box")
    if first < 0:
        return []
    open_braces: list[tuple[int, int, bool]] = []
    places: list[Place] = []
    # Braces before the first box are none of ours; `\f` may stand before "box".
    start_of_box = max(first - len("\\f"), 0)
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
    return places


def last_boxed(text: str) -> str | None:
    """Return what stands in the last balanced `\\boxed{…}`, or None."""
    places = boxes(text[-MAX_TURN_CHARS:])
    return places[-1][2] if places else None


def extract(text: str, *, unmarked: bool = False) -> tuple[str | None, str]:
    """Return a reply's answer, or None, and where it stands.

    That is "box", "tag", "line" or, where nothing marks an answer, "end".

    Args:
        unmarked: Take the last expression of a reply that marks no answer at all.
    """
    text = one_blank(without_thinking(text[-MAX_TURN_CHARS:]))
    places = boxes(text)
    if places and not _is_overruled(text, places[-1]):
        return _boxed_answer(text, places), "box"
    tags = TAG.findall(text)
    if tags:
        return tags[-1].strip() or None, "tag"
    text = _CLOSING.sub("", text)
    statements = _LINE.findall(text)
    if statements:
        # "The answer is 5. This is because …": only the first sentence is the answer.
        sentences = _SENTENCE_END.split(statements[-1])
        return _pick(sentences[0]), "line"
    lines = [line for line in text.splitlines() if line.strip()]
    if not unmarked or not lines:
        return None, "end"
    sentences = _SENTENCE_END.split(lines[-1].strip())
    return _pick(sentences[-1]), "end"


def _is_overruled(text: str, box: Place) -> bool:
    """Return whether a line "Final answer: …" that holds no box follows a box."""
    final = None
    for line in _LINE.finditer(text):
        start = max(line.start() - _MAX_FINAL_CHARS, 0)
        if _FINAL.search(text, start, line.start()):
            final = line
    if final is None:
        return False
    _, end, _ = box
    return final.start() > end and "\\boxed" not in final[1]


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
    end = max(text.rfind(mark) for mark in _THOUGHT_ENDS)
    if begin > end:
        return text[:begin]
    # A chat template may have written the opening mark: the closing one is enough.
    if end < 0:
        return text
    return text[text.index(">", end) + 1 :]


def _boxed_answer(text: str, places: list[Place]) -> str | None:
    """Return what the last group of boxes says; None if one of them is empty."""
    contents = [content for _, _, content in _last_group(text, places)]
    return ", ".join(contents) if all(contents) else None


def _last_group(text: str, places: list[Place]) -> list[Place]:
    """Return the last place, with those before it that make one answer with it.

    Only a comma, "and", "or" and their like part them.
    """
    first = len(places) - 1
    while first > 0:
        _, gap_start, _ = places[first - 1]
        gap_end, _, _ = places[first]
        if not joins(text[gap_start:gap_end]):
            break
        first -= 1
    return places[first:]


def joins(gap: str) -> bool:
    """Return whether what stands between two values makes them one answer.

    "and", a comma, `y =` do.
    """
    bare = _MARK.sub(" ", gap[:_MAX_GAP_CHARS])
    words = " ".join(bare.replace(",", " , ").split())
    return _JOINT.fullmatch(words) is not None


def _pick(sentence: str) -> str | None:
    """Return the value a sentence ends in; None if it is denied or asked.

    It is the last formula, or the last number or numbers, or all of a sentence that is
    no prose.
    """
    if sentence.endswith("?"):
        return None
    places = formulas(sentence)[-MAX_FORMULAS:]
    # A number behind the last formula is the value: "$x$ is 5".
    if places and not _DIGIT.search(sentence, places[-1][1]):
        group = _last_group(sentence, places)
        if _is_denied(sentence, group[0][0]):
            return None
        return ", ".join(content for _, _, content in group)
    is_prose = len(_PROSE.findall(sentence)) > 1 and "\\" not in sentence
    values = list(_VALUES.finditer(sentence)) if is_prose else []
    if not values:
        return sentence.rstrip(".")
    last = values[-1]
    return None if _is_denied(sentence, last.start()) else last[0]


def _is_denied(sentence: str, end: int) -> bool:
    """Return whether what stands before a value says that it is not the answer."""
    before = sentence[max(0, end - _MAX_DENIAL_CHARS) : end]
    return _NEGATION.search(before) is not None


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
