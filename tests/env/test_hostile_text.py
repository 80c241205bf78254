"""Whatever a text is, what reads it is done soon, in time linear in the text, and
raises nothing.
"""

import asyncio
import gc
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import ModuleType
from typing import Any

import pytest

from aipo_env import Completion, Dialogue, DialogueRules, MathVerifier, Task
from aipo_env.agents import chat, hands, notes
from aipo_env.codecs import hermes, macro, openai_calls, tags
from aipo_env.codecs.hermes import HermesCodec
from aipo_env.codecs.macro import MacroCodec
from aipo_env.codecs.openai_calls import OpenAICodec
from aipo_env.codecs.tags import TagsCodec
from aipo_env.records import Author, Span
from aipo_env.verifiers import (
    choice,
    choice_claims,
    choice_doubts,
    choice_elsewhere,
    choice_lines,
    choice_options,
    choice_places,
    choice_questions,
    choice_undecided,
    choice_verdicts,
    extract,
    unit_tests,
)
from aipo_env.verifiers.choice import ChoiceVerifier, read_choice
from aipo_env.verifiers.leaks import (
    candidates,
    check,
    encodings,
    numerals,
    phrases,
    plain_text,
    programs,
    rule,
    spoken,
)
from aipo_env.verifiers.leaks.candidates import names_number, names_text
from aipo_env.verifiers.leaks.check import gives_away
from aipo_env.verifiers.leaks.encodings import decoded
from aipo_env.verifiers.leaks.gold import Gold
from aipo_env.verifiers.leaks.numerals import (
    number_words,
    readings_in,
    spells_out,
    undressed,
    values_in,
)
from aipo_env.verifiers.leaks.phrases import is_said
from aipo_env.verifiers.leaks.plain_text import folded, plain
from aipo_env.verifiers.leaks.programs import holds_program
from aipo_env.verifiers.leaks.spoken import as_formulas
from aipo_env.verifiers.math import compare as compare_forms
from aipo_env.verifiers.math import forms, times, units
from aipo_env.verifiers.math import text as math_text
from aipo_env.verifiers.math.grade import Undecided, without_algebra
from aipo_env.verifiers.reading import (
    clause,
    cues,
    prose,
    retraction,
    sentence,
)
from aipo_env.verifiers.reading import (
    words as reading_words,
)
from aipo_env.verifiers.unit_tests import read_program

OPTIONS = ("the rate halves", "the rate doubles", "nothing changes")
LONG = 200_000


# Texts that make a pattern work: made from the pattern's own tree, so that a new
# pattern has its own.

_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)
_CHARACTERS = (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)
_OF_CATEGORY = {
    op.CATEGORY_SPACE: " \n",
    op.CATEGORY_DIGIT: "1",
    op.CATEGORY_WORD: "a1_",
    op.CATEGORY_NOT_SPACE: "a!",
    op.CATEGORY_NOT_WORD: " !",
    op.CATEGORY_NOT_DIGIT: "a ",
}
_ANYTHING = " \na1A!,.({[<\\$*_-x"
_COMMON = (
    " ",
    "\n",
    "1",
    "a",
    "(",
    "\\[",
    "$",
    "{",
    "<",
    '"',
    "*",
    "~",
    "\\,",
    "%",
    "_",
)
_NUM_VARIANTS = 12


def patterns_of(modules: Iterable[ModuleType]) -> Iterator[re.Pattern[str]]:
    """Yield the patterns that modules hold, in lists and tables too."""
    seen: set[tuple[str, int]] = set()

    def find(value: Any, depth: int) -> Iterator[re.Pattern[str]]:
        if isinstance(value, re.Pattern):
            if isinstance(value.pattern, str):
                yield value
        elif isinstance(value, list | tuple | dict) and depth < 3:
            inner = value.values() if isinstance(value, dict) else value
            for part in inner:
                yield from find(part, depth + 1)

    for module in modules:
        for pattern in find(list(vars(module).values()), 0):
            if (pattern.pattern, pattern.flags) not in seen:
                seen.add((pattern.pattern, pattern.flags))
                yield pattern


def attacks(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """Return (beginning, what is repeated) pairs: for each repeat of the pattern, what
    leads to it and what feeds it.
    """
    tree = parser.parse(pattern.pattern, pattern.flags)
    wholes = [whole for whole in _variants(tree, 20) if whole]
    found = [("", whole[: length or None]) for whole in wholes for length in (0, -1)]
    for before, pump in _repeats(tree, ""):
        found += [(before, pump), (f"1{before}", pump), (before.replace(" ", ""), pump)]
    found += [(whole[:-1], pump) for whole in wholes[:2] for pump in _COMMON]
    return list(dict.fromkeys(pair for pair in found if pair[1]))


def _members(kind: Any, value: Any) -> list[str]:
    """Return some characters that a node matches."""
    if kind is op.LITERAL:
        return [chr(value)]
    if kind is op.NOT_LITERAL:
        return [mark for mark in _ANYTHING if ord(mark) != value][:6]
    if kind is op.ANY:
        return list("a 1")
    members: list[str] = []
    for inner, part in value:
        if inner is op.LITERAL:
            members.append(chr(part))
        elif inner is op.RANGE:
            members += [chr(part[0]), chr(part[1])]
        elif inner is op.CATEGORY:
            members += _OF_CATEGORY.get(part, "!")
    if value[0][0] is op.NEGATE:
        return [mark for mark in _ANYTHING if mark not in members][:6]
    return members


def _shortest(tree: Any) -> str:
    return "".join(_of_node(kind, value) for kind, value in tree)


def _of_node(kind: Any, value: Any) -> str:
    """Return one short text that a node matches."""
    if kind in _CHARACTERS:
        return next(iter(_members(kind, value)), "")
    if kind in _REPEATS:
        return _shortest(value[2]) * value[0]
    if kind is op.SUBPATTERN:
        return _shortest(value[3])
    if kind is op.BRANCH:
        return _shortest(value[1][0])
    if kind is op.ASSERT and value[0] < 0:
        return _shortest(value[1])
    # Where a word ends, a blank does no harm where it may stand, and is left out in a
    # second try.
    return " " if kind is op.AT and value is op.AT_BOUNDARY else ""


def _variants(tree: Any, most: int) -> list[str]:
    """Return a few texts that a tree matches."""
    texts = [""]
    for kind, value in tree:
        if kind in _CHARACTERS:
            parts = _members(kind, value)
        elif kind in _REPEATS:
            bodies = _variants(value[2], 4)
            parts = [body * max(value[0], 1) for body in bodies] + [
                bodies[0] * value[0]
            ]
        elif kind is op.SUBPATTERN:
            parts = _variants(value[3], most)
        elif kind is op.BRANCH:
            parts = [text for branch in value[1] for text in _variants(branch, 3)]
        else:
            parts = [_of_node(kind, value)]
        joined = [
            text + part for text in texts for part in dict.fromkeys(parts or [""])
        ]
        step = max(1, len(joined) // most)
        texts = list(dict.fromkeys(joined[::step]))[:most]
    return texts


def _repeats(tree: Any, before: str) -> Iterator[tuple[str, str]]:
    """Yield what stands before each repeat, and what it repeats."""
    for kind, value in tree:
        if kind in _REPEATS:
            if value[1] is op.MAXREPEAT or value[1] > 4:
                for pump in _variants(value[2], _NUM_VARIANTS):
                    yield before, pump
            yield from _repeats(value[2], before)
        elif kind is op.SUBPATTERN:
            yield from _repeats(value[3], before)
        elif kind is op.BRANCH:
            for branch in value[1]:
                yield from _repeats(branch, before)
        elif kind in (op.ASSERT, op.ASSERT_NOT):
            yield from _repeats(value[1], before)
        before += _of_node(kind, value)


# Readers


def compare(text: str) -> None:
    with suppress(Undecided):
        without_algebra("\\frac{3}{7}", text)


def render(text: str) -> None:
    for codec in (TagsCodec(), HermesCodec(), MacroCodec(), OpenAICodec()):
        codec.render_reply("verify", Span(text, Author.AGENT))


def numbers(text: str) -> None:
    text = plain(text)
    values_in(text), readings_in(text), spells_out(undressed(text), "142857")
    number_words(text), decoded(text)


def words(text: str) -> None:
    text = plain(text)
    folded(text), is_said("Treaty of Westphalia", text, ""), as_formulas(text)


def claims(text: str) -> None:
    text = plain(text)
    names_number(text, Fraction(142857), ())
    names_text(text, "Marie Curie", is_words=True)


def statements(text: str) -> None:
    with suppress(Undecided):
        for gold in ("142857", "Marie Curie", "x^2-5x+6"):
            rule.leaks(Gold(gold), text, text, without, check._parse_in_worker)


def without(gold: str, statement: str) -> bool:
    return False


class Reader:
    """What reads foreign text, whose patterns it has, and how much of it."""

    def __init__(
        self, read: Callable[[str], object], size: int, *modules: ModuleType
    ) -> None:
        self.read, self.size, self.modules = read, size, modules

    def seconds(self, text: str) -> float:
        begin = time.thread_time()
        self.read(text)
        return time.thread_time() - begin


READING = (extract, clause, cues, prose, retraction, sentence, reading_words)
READERS = {
    "the answer of a reply": Reader(
        lambda text: extract.extract(text, unmarked=True), 10_000, *READING
    ),
    "the answer of a line": Reader(
        lambda text: extract.extract(f"Answer: {text}"), 10_000, *READING
    ),
    "what follows an answer": Reader(
        lambda text: extract.extract(f"The answer is 5. {text}"), 10_000, *READING
    ),
    "an answer that is compared here": Reader(
        compare, 32, math_text, forms, compare_forms, units, times
    ),
    "an answer that is compared in a worker": Reader(
        compare, 2_000, math_text, forms, compare_forms, units, times
    ),
    "an option": Reader(
        lambda text: read_choice(text, OPTIONS),
        LONG,
        choice,
        choice_claims,
        choice_doubts,
        choice_elsewhere,
        choice_lines,
        choice_options,
        choice_places,
        choice_questions,
        choice_undecided,
        choice_verdicts,
        extract,
    ),
    "a program": Reader(read_program, LONG, unit_tests, extract),
    "numbers": Reader(numbers, 2_000, numerals, encodings),
    "names and spoken formulas": Reader(words, 4_000, plain_text, phrases, spoken),
    "what the policy said": Reader(claims, 4_000, candidates),
    "what a reply states": Reader(statements, 2_000, rule),
    "a whole program": Reader(
        lambda text: holds_program(text, "f", "def f(x): return x"), 4_000, programs
    ),
    "calls in tags": Reader(TagsCodec().parse, LONG, tags),
    "calls in JSON": Reader(HermesCodec().parse, LONG, hermes),
    "calls by marks": Reader(MacroCodec().parse, LONG, macro),
    "calls of a message": Reader(OpenAICodec().parse, LONG, openai_calls),
    "a reply that is wrapped": Reader(
        render, 20_000, tags, hermes, macro, openai_calls
    ),
    "arithmetic in a claim": Reader(
        lambda text: notes.check_arithmetic(text), 4_000, notes
    ),
    "equations in a claim": Reader(
        lambda text: [*hands._equations(text)], 4_000, hands, extract
    ),
    "sentences": Reader(lambda text: chat._SENTENCE_END.split(text), 20_000, chat),
}
NUM_ATTACKS = 120
"""Of a reader, drawn from all those that its patterns have."""
MAX_S = 0.25
"""On a machine that does other things as well; what holds the event loop is asserted
below.
"""


def texts(reader: Reader, size: int) -> list[str]:
    """Return attacks of a size, two for each that is drawn."""
    pairs = [
        pair for pattern in patterns_of(reader.modules) for pair in attacks(pattern)
    ]
    picked = random.Random(0).sample(pairs, min(len(pairs), NUM_ATTACKS))
    return [
        (before + pump * (size // len(pump)))[: size - 1] + end
        for before, pump in picked
        for end in ("\0", "x")
    ]


@pytest.mark.parametrize("name", READERS)
def test_twice_the_text_takes_less_than_three_times_as_long(name: str):
    reader = READERS[name]
    half = texts(reader, reader.size // 2)
    whole = texts(reader, reader.size)
    for short, long in zip(half, whole, strict=True):
        seconds = reader.seconds(long)
        if seconds < 0.05:  # too short to be measured, and short enough
            continue
        seconds = min(seconds, *(reader.seconds(long) for _ in range(3)))
        before = max(reader.seconds(short) for _ in range(3))
        assert seconds < 3 * before + 0.01, repr(long[:60])
        assert seconds < MAX_S, repr(long[:60])


HELD = {
    "blanks after a cue": "The answer is" + " " * LONG,
    "blanks in a box": "\\boxed{1" + "~" * 1_900 + "q}",
    "thin spaces in a box": "\\boxed{1" + "\\," * 990 + "q}",
    "percent signs": "\\boxed{1" + "%" * 690 + "}",
    "open formulas": "Answer: " + "\\(" * 100_000,
    "open brackets": "Answer: " + "\\[" * 100_000,
    "denials": "the answer is not" + " " * LONG + "x 5",
    "points": "\\boxed{" + "A_A" * 600 + "=1}",
    "names": "\\boxed{(" + "a_a," * 400 + "a)=1}",
    "boxes": "\\boxed{" * 28_000,
    "tags": "<answer>" * 25_000,
    "thoughts": "<think>" * 28_000,
    "values": "Answer: " + "1,$" * 60_000,
    "joined formulas": "Answer: " + "$1$, " * 40_000,
    "fences": "```python\n" * 20_000,
    "calls": "<verify>x</verify>" * 11_000,
    "ligatures": "\ufdfa" * LONG,
    "fractions": "\u2152" * LONG,
    "quotes": '{"role": "assistant", "tool_calls": [' + "[" * 190_000,
}


@pytest.mark.parametrize("name", HELD)
def test_no_text_holds_the_event_loop(name: str):
    text = HELD[name]
    math = Task(id="t", prompt="?", answer="142857")
    option = Task(id="t", prompt="?", answer="A", kind="choice", choices=OPTIONS)

    async def held() -> float:
        async def read() -> None:
            dialogue = Dialogue(math, DialogueRules(), TagsCodec(), aided=True)
            dialogue.receive(Completion(text, (1,)))
            await asyncio.sleep(0)
            OpenAICodec().parse(text)
            await asyncio.sleep(0)
            verdict = await MathVerifier().verify(math, text)
            assert verdict.reward == 0.0
            await ChoiceVerifier().verify(option, text)
            await asyncio.sleep(0)
            await gives_away(Gold("142857"), text[:20_000], "")
            await gives_away(Gold("\\frac{355}{113}"), text[:20_000], text)
            many = Gold("A", kind="choice", choices=(text[:50_000],) * 4)
            await gives_away(many, "The answer is A.", "")

        work, worst = asyncio.ensure_future(read()), 0.0
        # What this thread itself computes between two looks is what the loop was held
        # for.
        before = time.thread_time()
        while not work.done():
            await asyncio.sleep(0.001)
            now = time.thread_time()
            worst, before = max(worst, now - before), now
        await work
        return worst

    # A collection of what other tests left would count as ours.
    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(held()) < 0.05
    finally:
        gc.enable()


@pytest.mark.slow
def test_random_texts_are_read_by_all():
    draw = random.Random(7)
    atoms = [
        pump
        for reader in READERS.values()
        for pattern in patterns_of(reader.modules)
        for _, pump in attacks(pattern)
    ]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        text = "".join(draw.choices(atoms, k=draw.randint(1, 60)))[:2_000]
        for name, reader in READERS.items():
            assert reader.seconds(text[: reader.size]) < MAX_S, (name, text)
