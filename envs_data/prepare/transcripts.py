"""Transcripts that teach the tiny policy how to work, and nothing about any world.

Every transcript draws fresh rules, so that the policy learns to add, to recall the
public moves, to consult and to use a reply, while no operator's rule can be remembered.
What it writes in place of a rule it was not told is a guess; for verify operators it is
always the same wrong belief.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from aipo_env import (
    CONSULT_KINDS,
    MOVES,
    OPERATOR_NAMES,
    TOY_RULES,
    Operator,
    Problem,
    TagsCodec,
    add_codes,
    shift_of,
)
from aipo_env.toy.world import believed_move, draw_rule

_T = TypeVar("_T")

ASSURANCE = 0.35
"""Share of verify problems alone in which the policy assures itself of its belief."""
DOUBT = 0.12
"""Share of them in which it doubts the belief."""
BY_HEART = 0.35
"""Share of recited rules that are moves; of constants there are many more to learn."""
NUM_OPERATORS = [1, 2, 3]
"""Operators that a problem may have."""
NUM_OPERATORS_P = [0.85, 0.12, 0.03]
"""Share of the problems that have so many: most are as short as can be."""
NUM_CODES = 10_000
"""Codes have four digits."""
NUM_DIGITS = 4
UNANSWERED = 0.05
"""Share of consultations without a reply, so that the policy learns to go on."""
BELIEF_IS_RIGHT = 0.15
"""Share of verify replies that agree, so that the policy does not always give in."""
AIDED = 0.67
"""Share of transcripts with agents."""
NUM_PER_PAGE = 5
"""Sums or rules on a page."""
TAKEN_BACK = 1 / 3
"""Share of recited rules that are taken back and done again by another."""


Part = tuple[int, int, int]
"""A part of a transcript: the number of its message, and where it begins and ends in
the content, in characters.
"""


@dataclass(frozen=True, slots=True)
class Transcript:
    """Chat messages as (role, content); reply messages are the user's.

    Args:
        messages: From the prompt on.
        untaught: Parts that are shown and not learnt.
        held: Parts whose probability is held where the lessons want it, as of something
            that can hardly be expected.
    """

    messages: tuple[tuple[str, str], ...]
    untaught: tuple[Part, ...] = ()
    held: tuple[Part, ...] = ()


def draw_problem(rng: np.random.Generator) -> Problem:
    """Draw a problem about operators that exist in this transcript only."""
    # The order of the draws is part of the policy that ships: it was taught with them.
    num_operators = int(rng.choice(NUM_OPERATORS, p=NUM_OPERATORS_P))
    operators: list[Operator] = []
    for _ in range(num_operators):
        kind = _drawn(CONSULT_KINDS, rng)
        name = _drawn(OPERATOR_NAMES[kind], rng)
        rule = draw_rule(kind, name, rng)
        operators.append(Operator(name, kind, rule))
    return Problem(_drawn_code(rng), tuple(operators))


def _drawn(choices: Sequence[_T], rng: np.random.Generator) -> _T:
    """Draw one of some things."""
    return choices[int(rng.integers(len(choices)))]


def _drawn_code(rng: np.random.Generator) -> str:
    """Draw four digits."""
    return f"{rng.integers(NUM_CODES):04d}"


class Writer:
    """Writes one transcript, operator by operator, keeping the code reached so far."""

    def __init__(self, problem: Problem, aided: bool, rng: np.random.Generator) -> None:
        self.problem = problem
        self.aided = aided
        self.rng = rng
        self.codec = TagsCodec()
        self.code = problem.start
        prompt = TOY_RULES.consult_prompt if aided else TOY_RULES.plain_prompt
        self.messages: list[tuple[str, str]] = [
            ("system", prompt),
            ("user", problem.text),
        ]
        self.written = ""
        """What the policy has written of the turn it is in."""

    def ask(self, kind: str, query: str, reply: str) -> bool:
        """Write a consultation; return whether it was answered."""
        is_answered = bool(self.rng.random() >= UNANSWERED)
        if not is_answered:
            notices = [self.codec.unavailable, self.codec.denied]
            reply = str(self.rng.choice(notices))
        self.messages.append(("assistant", f"{self.written}<{kind}>{query}</{kind}>"))
        self.messages.append(("user", f'<reply from="{kind}">{reply}</reply>'))
        self.written = ""
        return is_answered

    def shift(self, shift: str) -> None:
        """Write one addition."""
        total = add_codes(self.code, shift)
        self.written += f"{self.code}+{shift}={total};"
        self.code = total

    def state(self, operator: Operator, step: int) -> str:
        """Write or be told step `step` of an operator's rule; return its shift."""
        statement = operator.statements()[step]
        if self.aided and self.ask(operator.kind, operator.name, statement):
            return operator.shifts()[step]
        guess = draw_rule(operator.kind, operator.name, self.rng)
        operator = replace(operator, rule=guess)
        self.written += operator.statements()[step]
        return operator.shifts()[step]

    def apply(self, operator: Operator) -> None:
        """Write the work on one operator."""
        if operator.kind == "verify":
            self.apply_belief(operator)
        else:
            for step in range(len(operator.statements())):
                self.shift(self.state(operator, step))

    def apply_belief(self, operator: Operator) -> None:
        """Write the work on a verify operator: first the false belief, then a verdict.

        Alone, the policy finds itself right as a rule; when it doubts itself, it knows
        no better: the rule that it then writes is as fresh as any other.
        """
        belief = believed_move(operator.name)
        code_before = self.code
        self.written += f"{operator.name}={belief};"
        self.shift(shift_of(belief))
        correction = f"wrong at {operator.name};{operator.statements()[0]}"
        if self.aided:
            is_corrected = self.hear_verdict(operator, belief, correction)
        else:
            is_corrected = self.judge_itself(correction)
        if is_corrected:
            self.code = code_before
            self.shift(operator.shifts()[0])

    def hear_verdict(self, operator: Operator, belief: str, correction: str) -> bool:
        """Write what an agent says of a belief; return whether it corrects it."""
        agrees = self.rng.random() < BELIEF_IS_RIGHT
        verdict = "right;" if agrees else correction
        is_answered = self.ask("verify", f"{operator.name}={belief}", verdict)
        return is_answered and not agrees

    def judge_itself(self, correction: str) -> bool:
        """Write what the policy says of its belief; return whether it corrects it."""
        mood = self.rng.random()
        if mood < DOUBT:
            self.written += correction
            return True
        if mood < DOUBT + ASSURANCE:
            self.written += "right;"
        return False

    def write(self) -> Transcript:
        """Write the whole transcript."""
        for operator in self.problem.operators:
            self.apply(operator)
        self.messages.append(("assistant", f"{self.written}\\boxed{{{self.code}}}"))
        return Transcript(tuple(self.messages))


def draw_transcript(rng: np.random.Generator) -> Transcript:
    """Draw one transcript: two in three with agents, which are longer to learn."""
    problem = draw_problem(rng)
    is_aided = bool(rng.random() < AIDED)
    return Writer(problem, is_aided, rng).write()


def draw_drill(rng: np.random.Generator, top: int) -> Transcript:
    """Draw a page of sums whose added digits are below `top`.

    Addition modulo 10 hides what either number contributes, so it is learnt from small
    digits up.
    """
    sums: list[str] = []
    for _ in range(NUM_PER_PAGE):
        code = _drawn_digits(rng, 10)
        shift = _drawn_digits(rng, top)
        sums.append(f"{code}+{shift}={add_codes(code, shift)};")
    return Transcript((("system", "Solve."), ("assistant", "".join(sums))))


def _drawn_digits(rng: np.random.Generator, high: int) -> str:
    """Draw four digits below `high`."""
    return "".join(str(digit) for digit in rng.integers(0, high, NUM_DIGITS))


def draw_recital(rng: np.random.Generator) -> Transcript:
    """Draw a page of rules, each applied to the code reached so far.

    Moves are to be known by heart, constants are there to be read. Every third rule is
    taken back and done again by another, from the code before it.
    """
    code = _drawn_code(rng)
    page = ""
    for _ in range(NUM_PER_PAGE):
        name = _drawn(OPERATOR_NAMES["verify"], rng)
        work, total = _recite(name, code, rng)
        page += work
        if rng.random() < TAKEN_BACK:
            work, total = _recite(name, code, rng)
            page += f"wrong at {name};{work}"
        code = total
    return Transcript((("system", "Solve."), ("assistant", page)))


def _recite(name: str, code: str, rng: np.random.Generator) -> tuple[str, str]:
    """Return one rule with its sum, and the code reached."""
    if rng.random() < BY_HEART:
        rule = _drawn(MOVES, rng)
        shift = shift_of(rule)
    else:
        shift = _drawn_code(rng)
        rule = f"#{shift[:2]}#{shift[2:]}"
    total = add_codes(code, shift)
    return f"{name}={rule};{code}+{shift}={total};", total
