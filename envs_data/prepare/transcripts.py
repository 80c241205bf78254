"""Transcripts that teach the tiny policy how to work, and nothing about any world.

Every transcript draws fresh rules, so that the policy learns to add, to recall the
public moves, to consult and to use a reply, while no operator's rule can be remembered.
What it writes in place of a rule it was not told is a guess; for verify operators it is
always the same wrong belief.
"""

from dataclasses import dataclass, replace

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

ASSURANCE, DOUBT = 0.35, 0.12
"""Shares of lone verify problems in which the policy assures itself that its belief is
right, or doubts it.
"""
BY_HEART = 0.35
"""Share of recited rules that are moves; the others are constants, of which there are
many more to learn.
"""


@dataclass(frozen=True, slots=True)
class Transcript:
    """Chat messages as (role, content); reply messages are the user's."""

    messages: tuple[tuple[str, str], ...]


def draw_problem(rng: np.random.Generator) -> Problem:
    """Draw a problem about operators that exist in this transcript only."""
    num_operators = int(rng.choice([1, 2, 3], p=[0.85, 0.12, 0.03]))
    operators = []
    for _ in range(num_operators):
        kind = CONSULT_KINDS[int(rng.integers(len(CONSULT_KINDS)))]
        name = OPERATOR_NAMES[kind][int(rng.integers(len(OPERATOR_NAMES[kind])))]
        operators.append(Operator(name, kind, draw_rule(kind, name, rng)))
    return Problem(f"{rng.integers(10_000):04d}", tuple(operators))


class Writer:
    """Writes one transcript, operator by operator, keeping the code reached so far."""

    def __init__(self, problem: Problem, aided: bool, rng: np.random.Generator) -> None:
        self.problem, self.aided, self.rng = problem, aided, rng
        self.codec = TagsCodec()
        self.code = problem.start
        prompt = TOY_RULES.consult_prompt if aided else TOY_RULES.plain_prompt
        self.messages: list[tuple[str, str]] = [
            ("system", prompt),
            ("user", problem.text),
        ]
        self.written = ""

    def ask(self, kind: str, query: str, reply: str) -> bool:
        """Write a consultation; one in twenty goes unanswered. Return whether it was
        answered.
        """
        answered = self.rng.random() >= 0.05
        if not answered:
            reply = str(self.rng.choice([self.codec.unavailable, self.codec.denied]))
        self.messages.append(("assistant", f"{self.written}<{kind}>{query}</{kind}>"))
        self.messages.append(("user", f'<reply from="{kind}">{reply}</reply>'))
        self.written = ""
        return answered

    def shift(self, shift: str) -> None:
        """Write one addition."""
        total = add_codes(self.code, shift)
        self.written += f"{self.code}+{shift}={total};"
        self.code = total

    def state(self, operator: Operator, step: int) -> str:
        """Write or be told step `step` of an operator's rule; return the shift it
        amounts to.
        """
        told = self.aided and self.ask(
            operator.kind, operator.name, operator.statements()[step]
        )
        if not told:
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
        """Write the work on a verify operator: the false belief first, then what the
        agent says of it.

        Alone, the policy finds itself right as a rule; when it doubts itself, it knows
        no better.
        """
        belief, start = believed_move(operator.name), self.code
        self.written += f"{operator.name}={belief};"
        self.shift(shift_of(belief))
        verdict = f"wrong at {operator.name};{operator.statements()[0]}"
        if not self.aided:
            mood = self.rng.random()
            corrected = mood < DOUBT
            self.written += (
                verdict if corrected else "right;" if mood < DOUBT + ASSURANCE else ""
            )
        else:
            right = self.rng.random() < 0.15
            answered = self.ask(
                "verify", f"{operator.name}={belief}", "right;" if right else verdict
            )
            corrected = answered and not right
        if corrected:
            self.code = start
            self.shift(operator.shifts()[0])

    def write(self) -> Transcript:
        """Write the whole transcript."""
        for operator in self.problem.operators:
            self.apply(operator)
        self.messages.append(("assistant", f"{self.written}\\boxed{{{self.code}}}"))
        return Transcript(tuple(self.messages))


def draw_transcript(rng: np.random.Generator) -> Transcript:
    """Draw one transcript: two in three with agents, since those are longer to
    learn.
    """
    return Writer(draw_problem(rng), aided=bool(rng.random() < 0.67), rng=rng).write()


def draw_drill(rng: np.random.Generator, top: int) -> Transcript:
    """Draw a page of sums whose added digits are below `top`.

    Addition modulo 10 hides what either number contributes, so it is learnt from small
    digits up.
    """
    sums = []
    for _ in range(5):
        code, shift = (
            "".join(map(str, rng.integers(0, high, 4))) for high in (10, top)
        )
        sums.append(f"{code}+{shift}={add_codes(code, shift)};")
    return Transcript((("system", "Solve."), ("assistant", "".join(sums))))


def draw_recital(rng: np.random.Generator) -> Transcript:
    """Draw a page of rules, each applied to the code reached so far: moves by heart,
    constants by sight.

    Every third is taken back and done again by another rule, from the code before it.
    """
    code, page = f"{rng.integers(10_000):04d}", ""
    for _ in range(5):
        name = OPERATOR_NAMES["verify"][
            int(rng.integers(len(OPERATOR_NAMES["verify"])))
        ]
        worked, total = _recite(name, code, rng)
        page += worked
        if rng.random() < 1 / 3:
            worked, total = _recite(name, code, rng)
            page += f"wrong at {name};{worked}"
        code = total
    return Transcript((("system", "Solve."), ("assistant", page)))


def _recite(name: str, code: str, rng: np.random.Generator) -> tuple[str, str]:
    """Return one rule with its sum, and the code reached."""
    if rng.random() < BY_HEART:
        rule = MOVES[int(rng.integers(len(MOVES)))]
        shift = shift_of(rule)
    else:
        shift = f"{rng.integers(10_000):04d}"
        rule = f"#{shift[:2]}#{shift[2:]}"
    total = add_codes(code, shift)
    return f"{name}={rule};{code}+{shift}={total};", total
