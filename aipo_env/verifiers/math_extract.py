"""Which part of a reply is its answer.

The last group of boxes decides, else the last answer tag, else the last line that says "answer". What the
policy thought does not count, and neither do earlier tries.

All of it is linear in the text, whatever the text: blanks are brought to one apiece first, so that patterns may say
`\\s*` one after another, and what stands between two marks is found by their places, not by a pattern.
"""

import re

MAX_REPLY_CHARS = 200_000
"""Only this much of the end of a reply is read."""
MAX_SPANS = 64
"""Only so many formulas at the end of a sentence are read."""
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
_BRACE = re.compile(r"\\[{}]|\\f?box(?:ed)?\s*\{|[{}]")
_MARK = re.compile(r"[\s${}]|\\(?:[\[\]();, ]|q?quad|text)")
_JOINT = re.compile(
    r"(?:[A-Za-z]+ (?=and|or))?(?:[,;/]|and|or)(?: (?:and|or|else|also|maybe|perhaps|possibly)\b)*"
    r"(?: \\?[A-Za-z]+(?:_\w+)?(?:\(\w\))? ?=)?"
)
Place = tuple[int, int, str]
"""Start and end of a marked answer in a text, and what it says."""
TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.S)
_LINE = re.compile(
    r"(?:\b(?i:answer)\b[\s*_]*(?:is|are|:|=|equals)[\s*_]*(?::[\s*_]*)?|\b(?i:answer)\s+(?=\$|\\\()|(?:答案|答え)\s*(?:是|为|為|は)?\s*[:\uff1a]?)\s*(\S[^\n]*)"
)
_FINAL = re.compile(r"(?i:final)\s*\Z")
_FENCE = re.compile(r"\$\$|\$|\\[()\[\]]")
_CLOSED_BY = {"$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
"""What opens a formula in a sentence, and what closes it."""
_VALUE = r"[-+]?(?:[$€£¥]\s*)?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:\s*/\s*[0-9]+)?(?:\s*%)?"
_VALUES = re.compile(rf"{_VALUE}(?:\s*(?:,|;|\band\b|\bor\b)+\s*{_VALUE})*")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z']{2,}")
_SENTENCE_END = re.compile(r"(?<=[\w$)}])\.\s+(?=[A-Z])")
_CLOSING = re.compile(
    r"(?:I hope it is correct|<\|im_(?:end|start)\|>|<\|endoftext\|>|</s>).*$", re.S
)
_NEGATION = re.compile(
    r"(?:\bnot|\bcannot|n't|\bneither|\bnor|\bnever|\bdiffers? from|\\neq?)\s*(?:equal\s*(?:to)?|be|a|an|the)?\s*$"
)


def boxes(text: str) -> list[Place]:
    """Return start, end and content of every balanced `\\boxed{…}` that holds no other, in order."""
    opened: list[tuple[int, int, bool]] = []
    found: list[Place] = []
    for brace in _BRACE.finditer(
        text, max(text.find("box") - 2, 0) if "box" in text else len(text)
    ):
        mark = brace.group()
        if mark in ("\\{", "\\}"):
            continue
        if mark.endswith("{"):
            opened.append((brace.start(), brace.end(), len(mark) > 1))
        elif opened:
            start, inner, is_box = opened.pop()
            if is_box and not (found and found[-1][0] > start):
                found.append((start, brace.end(), text[inner : brace.start()].strip()))
    return found


def last_boxed(text: str) -> str | None:
    """Return what stands in the last balanced `\\boxed{…}`, or None."""
    found = boxes(text[-MAX_REPLY_CHARS:])
    return found[-1][2] if found else None


def extract(text: str, *, unmarked: bool = False) -> tuple[str | None, str]:
    """Return a reply's answer, or None, and where it was found.

    Args:
        unmarked: Take the last expression of a reply that marks no answer at all.
    """
    text = one_blank(without_thinking(text[-MAX_REPLY_CHARS:]))
    stated = _LINE.finditer(text)
    final = [
        line
        for line in stated
        if _FINAL.search(text, max(line.start() - 99, 0), line.start())
    ]
    if (found := boxes(text)) and not (
        final and final[-1].start() > found[-1][1] and "\\boxed" not in final[-1][1]
    ):
        return _group(text, found), "box"
    if tags := TAG.findall(text):
        return tags[-1].strip() or None, "tag"
    text = _CLOSING.sub("", text)
    if lines := _LINE.findall(text):
        return _pick(_SENTENCE_END.split(lines[-1])[0]), "line"
    lines = [line for line in text.splitlines() if line.strip()]
    return (
        _pick(_SENTENCE_END.split(lines[-1].strip())[-1])
        if lines and unmarked
        else None
    ), "end"


def one_blank(text: str) -> str:
    """Return a text in which no two blanks stand side by side; a run that breaks a line is one line break."""
    return _BLANKS.sub(lambda run: "\n" if "\n" in run[0] else " ", text)


def without_thinking(text: str) -> str:
    """Return what follows the last thought; of a thought that never ended, what came before it."""
    begin = max(map(text.rfind, _THOUGHT_BEGINS))
    end = max(text.rfind(mark) for mark in _THOUGHT_ENDS)
    if begin > end:
        return text[:begin]
    return text if end < 0 else text[text.index(">", end) + 1 :]


def _group(text: str, found: list[Place]) -> str | None:
    """Return the last box, with those before it that only a comma, "and" or "or" parts from it."""
    first = len(found) - 1
    while first and joins(text[found[first - 1][1] : found[first][0]]):
        first -= 1
    contents = [content for _, _, content in found[first:]]
    return ", ".join(contents) if all(contents) else None


def joins(gap: str) -> bool:
    """Return whether what stands between two values makes them one answer: "and", a comma, `y =`."""
    words = " ".join(_MARK.sub(" ", gap[:200]).replace(",", " , ").split())
    return _JOINT.fullmatch(words) is not None


def _pick(sentence: str) -> str | None:
    """Return the value a sentence ends in: its last formula, or its last number or numbers; None if it is denied or asked."""
    if sentence.endswith("?"):
        return None
    spans = formulas(sentence)[-MAX_SPANS:]
    if spans and not re.search(r"[0-9]", sentence[spans[-1][1] :]):
        first = len(spans) - 1
        while first and joins(sentence[spans[first - 1][1] : spans[first][0]]):
            first -= 1
        if _is_denied(sentence, spans[first][0]):
            return None
        return ", ".join(content for _, _, content in spans[first:])
    is_prose = len(_PROSE.findall(sentence)) > 1 and "\\" not in sentence
    if not is_prose or not (numbers := list(_VALUES.finditer(sentence))):
        return sentence.rstrip(".")
    last = numbers[-1]
    return None if _is_denied(sentence, last.start()) else last.group()


def _is_denied(sentence: str, end: int) -> bool:
    """Return whether what stands before a value says that it is not the answer."""
    return _NEGATION.search(sentence[max(0, end - 60) : end]) is not None


def formulas(sentence: str) -> list[Place]:
    """Return the formulas between dollar signs, `\\(…\\)` or `\\[…\\]`, none empty, in order."""
    found: list[Place] = []
    never_closed: set[str] = set()
    mark = _FENCE.search(sentence)
    while mark:
        following = mark.start() + 1
        closing = _CLOSED_BY.get(mark[0], "")
        if closing and closing not in never_closed:
            inner = mark.end()
            start = sentence.find(closing, inner + 1)  # `$$$$` holds nothing
            if start < 0:
                never_closed.add(closing)  # nor is what opens after this
            else:
                following = start + len(closing)
                found.append((mark.start(), following, sentence[inner:start]))
        mark = _FENCE.search(sentence, following)
    return found
