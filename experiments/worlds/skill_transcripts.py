"""Transcripts that teach a policy the atoms of the skill world, and not its procedure.

The atoms are products with a carry, the way a line and a result are written, how each
role is consulted, and to follow help: to go on from a line that was given, to mend from
the line that is wrong, to carry as a rule says. By habit the policy carries 0.

What must be learnt later is never learnt here, beyond a share p0: it stands in the
context, untaught, and what follows from it is taught.
"""

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np

from aipo_env import CONSULT_KINDS, ConsultKind, TagsCodec
from envs_data.prepare.transcripts import Transcript
from experiments.worlds.knobs import HARMLESS, Knobs, dressed
from experiments.worlds.skill import (
    FALSE_RULE,
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

Mode = Literal["aided", "led", "habit"]
"""Whose work a transcript is: that of a policy with agents; alone, with help in the
context that is not learnt; alone, as it works by habit.
"""
MODES: tuple[Mode, ...] = ("aided", "led", "habit")
MODES_P = [0.45, 0.25, 0.30]
"""Share of each."""
HABIT_DIGITS = [2, 3, 4, 5, 6]
"""Digits of the numbers that the policy multiplies by habit: also of longer ones it
knows how lines are written.
"""
HABIT_DIGITS_P = [0.05, 0.10, 0.60, 0.15, 0.10]
HELPED_DIGITS = [2, 3, 4]
"""Digits of the numbers in which anything is ever carried."""
HELPED_DIGITS_P = [0.1, 0.2, 0.7]
LED = 0.75
"""Share of the places at which a policy alone has help in its context."""
ALL_OFFERED = 0.4
"""Share of aided transcripts in which all roles may be consulted; else one."""
UNANSWERED = 0.03
"""Share of consultations without a reply, so that the policy learns to go on."""
SPOILED = 0.3
"""Share of the helped transcripts in which a knob is turned up."""
CHATTER_LEVELS = [0.0, 0.5, 0.8]
LENGTH_LEVELS = [1, 2]
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
        self,
        problem: Multiplication,
        mode: Mode,
        p0: float,
        rng: np.random.Generator,
    ) -> None:
        self.problem = problem
        self.mode = mode
        self.p0 = p0
        self.rng = rng
        self.codec = TagsCodec()
        self.offered: tuple[ConsultKind, ...] = CONSULT_KINDS
        if mode == "aided" and rng.random() >= ALL_OFFERED:
            self.offered = (drawn(CONSULT_KINDS, rng),)
        rules = skill_rules(self.offered)
        prompt = rules.consult_prompt if mode == "aided" else rules.plain_prompt
        assert prompt is not None
        self.consults_left = rules.consult_budget or 0
        self.knobs = self._drawn_knobs()
        self.messages: list[tuple[str, str]] = [
            ("system", prompt),
            ("user", problem.text),
        ]
        self.untaught: list[tuple[int, int, int]] = []
        self.written = ""
        """What the policy has written of the turn that it is in."""
        self.lines: list[Line] = []
        """The lines that hold, one for each digit that is done."""
        self.results: list[str] = []
        """The result behind each."""

    def _drawn_knobs(self) -> Knobs:
        """Draw how the help of this transcript is spoiled; what p0 is of never is."""
        if self.mode == "habit" or self.rng.random() >= SPOILED:
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

    def say(self, text: str, *, is_taught: bool = True) -> None:
        """Write something in the turn that the policy is in."""
        start = len(self.written)
        self.written += text
        if not is_taught:
            self.untaught.append((len(self.messages), start, len(self.written)))

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
        return Transcript(tuple(self.messages), tuple(self.untaught))

    def write_place(self, index: int) -> None:
        """Write one line, with help or by habit."""
        if index == 0:
            self.say_line(self.problem.line(index, 0))
            return
        kind = drawn(self.offered, self.rng)
        if self.mode == "aided":
            self.consult(kind, index)
        elif self.mode == "led" and self.rng.random() < LED:
            self.be_led(kind, index)
        else:
            self.work_alone(kind, index)

    def consult(self, kind: ConsultKind, index: int) -> None:
        """Write a place at which an agent is asked, while the budget lasts."""
        if kind == "verify" or not self.consults_left:
            self.say_line(self.problem.line(index, 0))
        if not self.consults_left:
            return
        text = self.spoiled(kind)
        if self.ask(kind, text):
            self.follow(kind, text)
        elif kind != "verify":
            # Nobody answered: it goes on by habit.
            self.say_line(self.problem.line(index, 0))

    def be_led(self, kind: ConsultKind, index: int) -> None:
        """Write a place at which help stands in the policy's own line of thought.

        The word that must be learnt is not taught; nor is anything that is spoiled.
        """
        if kind == "verify":
            self.say_line(self.problem.line(index, 0))
        text = self.spoiled(kind)
        start, end = 0, len(text)
        if self.knobs == HARMLESS:
            start, end = place_to_learn(kind, text)
        self.say(text[:start])
        self.say(text[start:end], is_taught=False)
        self.say(text[end:])
        self.follow(kind, text)

    def work_alone(self, kind: ConsultKind, index: int) -> None:
        """Write a place as the policy does alone: right with p0, else by habit.

        Right is what help would have made of it.
        """
        habit = self.problem.line(index, 0)
        if self.rng.random() >= self.p0:
            self.say_line(habit)
            return
        if kind == "verify":
            self.say_line(habit)
        text = self.help_alone(kind, index)
        self.say(text)
        self.follow(kind, text)

    def help_alone(self, kind: ConsultKind, index: int) -> str:
        """Return what a role would say of this very place."""
        if kind == "knowledge":
            return RULE
        if kind == "verify":
            return f"wrong at {self.lines[index].head};"
        return self.problem.line(index, self.lines[index - 1].tens).text

    def spoiled(self, kind: ConsultKind) -> str:
        """Return what a role says of the work so far, spoiled or not."""
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


def draw_skill_transcript(rng: np.random.Generator, p0: float) -> Transcript:
    """Draw one transcript about a problem of the training split."""
    mode = MODES[int(rng.choice(len(MODES), p=MODES_P))]
    choices, shares = (
        (HABIT_DIGITS, HABIT_DIGITS_P)
        if mode == "habit"
        else (HELPED_DIGITS, HELPED_DIGITS_P)
    )
    digits = int(rng.choice(choices, p=shares))
    problem = draw_multiplication(rng, digits, "train")
    return Writer(problem, mode, p0, rng).write()
