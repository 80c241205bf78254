"""Transcripts that teach a policy the atoms of the skill world, and not its procedure.

The atoms are products with a carry, the way a line and a result are written, how each
role is consulted, and to follow help: to go on from a line that was given, to mend from
the line that is wrong, to carry as a rule says. By habit the policy carries 0.

What must be learnt later stands in the context of a policy alone, and what follows from
it is taught, while its own probability is held where the world wants it.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from aipo_env import CONSULT_KINDS, ConsultKind, TagsCodec
from envs_data.prepare.transcripts import Part, Transcript
from experiments.worlds.knobs import HARMLESS, Knobs, dressed
from experiments.worlds.skill import (
    BASE,
    FALSE_RULE,
    MAX_FACTOR,
    MIN_FACTOR,
    PLAIN_PROMPT,
    QUERIES,
    RIGHT,
    RULE,
    Line,
    Multiplication,
    draw_multiplication,
    next_step,
    skill_rules,
    stated_lines,
    verdict,
)

_T = TypeVar("_T")

DIGIT_COUNTS = [2, 3, 4, 5, 6]
"""Digits of the numbers of transcripts."""
DIGIT_COUNTS_P = [0.08, 0.16, 0.60, 0.10, 0.06]
MOST_HELPED_DIGITS = 4
"""In longer numbers nothing is ever carried: by habit alone the policy knows how they
are multiplied in lines.
"""
DRILLS = 0.15
"""Share of transcripts that are pages of products."""
PRODUCTS_PER_PAGE = 8
AIDED = 0.5
"""Share of transcripts with agents, of those that solve a problem."""
LED = 0.2
"""Probability, at each point where help makes a difference, that a policy alone has
this help in its context.
"""
ALL_OFFERED = 0.4
"""Share of aided transcripts in which all roles may be consulted; else one."""
UNANSWERED = 0.03
"""Share of consultations without a reply, so that the policy learns to go on."""
SPOILED = 0.2
"""Share of the transcripts in which a knob is turned up."""
CHATTER_LEVELS = [0.0, 0.5, 0.8]
LENGTH_LEVELS = [1, 2]
PAGE_MESSAGE = 1
"""The number of the message that is a page: behind the prompt."""
WRONG_LEVEL = 0.25
"""Probability that a reply misleads, in them."""


def drawn(choices: Sequence[_T], rng: np.random.Generator) -> _T:
    """Draw one of some things."""
    return choices[int(rng.integers(len(choices)))]


def place_to_learn(kind: ConsultKind, text: str) -> tuple[int, int]:
    """Return where the word that must be learnt stands in help that is not spoiled.

    It is the carry of a line, the first word of a rule, that of a verdict.
    """
    if kind == "reason":
        start = text.index("+") + 1
        return start, start + 1
    return 0, len(text.split()[0].rstrip(";"))


class Writer:
    """Writes one transcript, line by line, keeping the results reached so far."""

    def __init__(
        self, problem: Multiplication, aided: bool, rng: np.random.Generator
    ) -> None:
        self.problem = problem
        self.aided = aided
        self.rng = rng
        self.codec = TagsCodec()
        self.offered: tuple[ConsultKind, ...] = CONSULT_KINDS
        if aided and rng.random() >= ALL_OFFERED:
            self.offered = (drawn(CONSULT_KINDS, rng),)
        rules = skill_rules(self.offered)
        prompt = rules.consult_prompt if aided else PLAIN_PROMPT
        assert prompt is not None
        self.consults_left = rules.consult_budget or 0
        self.knobs = self._drawn_knobs()
        self.messages: list[tuple[str, str]] = [
            ("system", prompt),
            ("user", problem.text),
        ]
        self.untaught: list[Part] = []
        self.held: list[Part] = []
        self.written = ""
        """What the policy has written of the turn that it is in."""
        self.lines: list[Line] = []
        """The lines that hold, one for each digit that is done."""
        self.results: list[str] = []
        """The result behind each."""

    def _drawn_knobs(self) -> Knobs:
        """Draw how the help of this transcript is spoiled."""
        if self.rng.random() >= SPOILED:
            return HARMLESS
        return Knobs(
            chatter=drawn(CHATTER_LEVELS, self.rng),
            wrong=WRONG_LEVEL,
            length=drawn(LENGTH_LEVELS, self.rng),
        )

    @property
    def trace(self) -> str:
        """All that was written and told so far, behind the prompt."""
        told = [content for _, content in self.messages[2:]]
        return "\n".join([*told, self.written])

    def say(self, text: str) -> Part:
        """Write something in the policy's turn; return which part it is."""
        start = len(self.written)
        self.written += text
        return len(self.messages), start, len(self.written)

    def take(self, line: Line) -> None:
        """Take a line for the one that holds, and forget those behind it."""
        index = self.problem.index_of(line.head)
        assert index is not None
        before = self.results[index - 1] if index else ""
        self.lines[index:] = [line]
        self.results[index:] = [f"{line.ones}{before}"]

    def say_line(self, line: Line) -> None:
        """Write a line of the policy's own."""
        self.say(line.text)
        self.take(line)

    def write(self) -> Transcript:
        """Write the whole transcript."""
        num_digits = len(self.problem.number)
        while len(self.lines) < num_digits:
            self.write_place(len(self.lines))
            if len(self.lines) < num_digits:
                self.say(f"{self.results[-1]};")
        last = self.lines[-1]
        # The tens of the last line are the first digit of the product, unless 0.
        tens = str(last.tens or "")
        self.say(f"\\boxed{{{tens}{self.results[-1]}}}")
        self.messages.append(("assistant", self.written))
        return Transcript(tuple(self.messages), tuple(self.untaught), tuple(self.held))

    def write_place(self, index: int) -> None:
        """Write one line, with help or by habit."""
        if index == 0 or len(self.problem.number) > MOST_HELPED_DIGITS:
            self.say_line(self.problem.line(index, 0))
        elif self.aided:
            self.consult(drawn(self.offered, self.rng), index)
        else:
            self.work_alone(index)

    def consult(self, kind: ConsultKind, index: int) -> None:
        """Write a place at which an agent is asked, while the budget lasts."""
        if kind == "verify" or not self.consults_left:
            self.say_line(self.problem.line(index, 0))
        if not self.consults_left:
            return
        text = self.reply(kind)
        if self.ask(kind, text):
            self.follow(kind, text)
        elif kind != "verify":
            # Nobody answered: it goes on by habit.
            self.say_line(self.problem.line(index, 0))

    def work_alone(self, index: int) -> None:
        """Write a place as the policy does alone, or led by help in its own thought.

        Help makes a difference at three points: before a line, at its carry, behind it.
        """
        for kind in ("knowledge", "reason"):
            if self.rng.random() < LED:
                self.be_led(kind)
                return
        self.say_line(self.problem.line(index, 0))
        if self.rng.random() < LED:
            self.be_led("verify")

    def be_led(self, kind: ConsultKind) -> None:
        """Write help as a thought of the policy's own, and what follows from it.

        The word that must be learnt is held at its probability; what is spoiled is not
        taught at all.
        """
        text = self.thought(kind)
        if self.knobs == HARMLESS:
            start, end = place_to_learn(kind, text)
            self.say(text[:start])
            self.held.append(self.say(text[start:end]))
            self.say(text[end:])
        else:
            self.untaught.append(self.say(text))
        self.follow(kind, text)

    def thought(self, kind: ConsultKind) -> str:
        """Return what a role would say of the very place that is reached."""
        truth, lie = RULE, FALSE_RULE
        if kind == "reason":
            index = len(self.lines)
            tens = self.lines[-1].tens
            other = (tens + int(self.rng.integers(1, BASE))) % BASE
            truth = self.problem.line(index, tens).text
            lie = self.problem.line(index, other).text
        elif kind == "verify":
            truth, lie = f"wrong at {self.lines[-1].head};", RIGHT
        return dressed(truth, lie, self.knobs, self.rng)

    def reply(self, kind: ConsultKind) -> str:
        """Return what a role says of the whole work so far, spoiled or not."""
        truth, lie = RULE, FALSE_RULE
        if kind == "reason":
            truth = next_step(self.problem, self.trace, None)
            lie = next_step(self.problem, self.trace, self.rng)
        elif kind == "verify":
            truth = verdict(self.problem, self.trace, is_lie=False)
            lie = verdict(self.problem, self.trace, is_lie=True)
        return dressed(truth, lie, self.knobs, self.rng)

    def ask(self, kind: ConsultKind, body: str) -> bool:
        """Write a consultation; return whether it was answered."""
        self.consults_left -= 1
        is_answered = bool(self.rng.random() >= UNANSWERED)
        if not is_answered:
            body = drawn([self.codec.unavailable, self.codec.denied], self.rng)
        call = f"{self.written}<{kind}>{QUERIES[kind]}</{kind}>"
        self.messages.append(("assistant", call))
        opening = f'<reply from="{kind}">'
        number = len(self.messages)
        self.messages.append(("user", f"{opening}{body}</reply>"))
        # What an agent says is foreseen as well, but for what is spoiled: a policy that
        # is at a loss in replies loses itself when it begins to learn from them.
        if is_answered and self.knobs != HARMLESS:
            self.untaught.append((number, len(opening), len(opening) + len(body)))
        self.written = ""
        return is_answered

    def follow(self, kind: ConsultKind, text: str) -> None:
        """Write what follows from help, as the last thing in it says."""
        if kind == "reason":
            stated = list(stated_lines(text).values())
            self.take(self._as_line(stated[-1]))
        elif kind == "knowledge":
            previous = self.lines[-1]
            is_true = text.rfind(RULE) > text.rfind(FALSE_RULE)
            carry = previous.tens if is_true else previous.ones
            self.say_line(self.problem.line(len(self.lines), carry))
        else:
            _, _, behind = text.rpartition("wrong at ")
            # "right;" behind it takes it back.
            if behind != text and RIGHT not in behind:
                self.mend(behind.split(";")[0])

    def mend(self, head: str) -> None:
        """Write a line anew, with what the line before it has to be carried."""
        index = self.problem.index_of(head)
        assert index is not None
        carry = self.lines[index - 1].tens if index else 0
        self.say_line(self.problem.line(index, carry))

    def _as_line(self, text: str) -> Line:
        """Return the line that a text states."""
        head, _, rest = text.partition("*")
        index = self.problem.index_of(head)
        assert index is not None
        carry = rest.partition("+")[2][0]
        return self.problem.line(index, int(carry))


def draw_skill_transcript(rng: np.random.Generator) -> Transcript:
    """Draw one transcript: a problem of the training split solved, or a drill."""
    if rng.random() < DRILLS:
        return draw_products(rng)
    digits = int(rng.choice(DIGIT_COUNTS, p=DIGIT_COUNTS_P))
    is_aided = digits <= MOST_HELPED_DIGITS and bool(rng.random() < AIDED)
    problem = draw_multiplication(rng, digits, "train")
    return Writer(problem, is_aided, rng).write()


def draw_products(rng: np.random.Generator) -> Transcript:
    """Draw a page of products to which something is added; these alone are taught."""
    page = ""
    untaught: list[Part] = []
    for _ in range(PRODUCTS_PER_PAGE):
        factor = int(rng.integers(MIN_FACTOR, MAX_FACTOR + 1))
        line = Line("", int(rng.integers(BASE)), factor, int(rng.integers(factor)))
        question, _, _ = line.text.partition("=")
        # Nobody can predict it.
        untaught.append((PAGE_MESSAGE, len(page), len(page) + len(question)))
        page += line.text
    messages = (("system", PLAIN_PROMPT), ("assistant", page))
    return Transcript(messages, tuple(untaught))
