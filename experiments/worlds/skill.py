"""The skill world: numbers multiplied in written steps, with the carry to be learnt.

    Multiply 3799 by 6.

    379.9*6+0=54;4;37.9*6+5=59;94;3.7*6+5=47;794;.3*6+4=22;\\boxed{22794}

A *line* takes the last of the digits that are left, multiplies it, and adds the carry;
after it stands the result so far. The *head* of a line, `37.9`, names it within its
problem. Nothing is to be remembered: each problem is a new one, and what solves them
all is a procedure. The carry of a line is the tens digit of the line before.

Only problems are drawn in which every line carries, so that whoever carries 0 is wrong
on each of them. No help states an answer:

- reason: the next line `37.9*6+5=59;`
- verify: the first line that is wrong `wrong at 37.9;`
- knowledge: the rule for the line that comes `carry tens;`
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import gymnasium as gym
import numpy as np

from aipo_env import (
    CONSULT_KINDS,
    AgentReply,
    AgentRequest,
    ConfigError,
    ConsultKind,
    RuleSettings,
    Split,
    Task,
    TaskSource,
)

DIGITS = 4
"""Digits of the numbers that are trained on."""
MAX_DIGITS = 12
"""Most digits that a source draws and an agent reads."""
MIN_FACTOR = 3
"""By 2 hardly any number carries everywhere."""
MAX_FACTOR = 9
BASE = 10
TEST_SHARE = 5
"""One problem in so many is for testing."""

PLAIN_PROMPT = "Solve."
"""The prompt of deployment."""
RULE = "carry tens;"
"""What the Knowledge Agent says."""
FALSE_RULE = "carry ones;"
"""What it says when it misleads."""
RIGHT = "right;"
UNKNOWN = "unknown;"
QUERIES: dict[ConsultKind, str] = {
    "knowledge": "Multiply",
    "reason": "next",
    "verify": "check",
}
"""The one question that each role answers. None is a word that its help teaches: a
policy that learns to say `carry` by itself must not be on the way to ask for it.
"""

_PROBLEM = re.compile(rf"Multiply ([1-9][0-9]{{0,{MAX_DIGITS - 1}}}) by ([2-9])\.")
_LINE = re.compile(r"(?<!\d)(\d*)\.(\d)\*(\d)\+(\d)=(\d\d);")


class Draw(IntEnum):
    """What a draw of the worlds is for; apart from the purposes of `aipo_env.Salt`."""

    SKILL_PROBLEM = 101
    SKILL_AGENT = 102
    KNOBS = 103
    WARM_START = 104
    FACTS_WARM_START = 105


def drawing(draw: Draw, *key: int) -> np.random.Generator:
    """Return the generator of a purpose and of what it is drawn for."""
    return np.random.default_rng([*key, int(draw)])


@dataclass(frozen=True, slots=True)
class Line:
    """One written step.

    Args:
        rest: The digits that come after it, "" for the last line.
        digit: The one that is multiplied.
        factor: By what.
        carry: What is added.
    """

    rest: str
    digit: int
    factor: int
    carry: int

    @property
    def head(self) -> str:
        """What names it: "37.9"."""
        return f"{self.rest}.{self.digit}"

    @property
    def product(self) -> int:
        """What the line comes to, at most two digits."""
        return self.digit * self.factor + self.carry

    @property
    def tens(self) -> int:
        """The tens digit of the product: what the next line has to carry."""
        return self.product // BASE

    @property
    def ones(self) -> int:
        """The ones digit of the product: the next digit of the result."""
        return self.product % BASE

    @property
    def text(self) -> str:
        """The line as it is written."""
        return f"{self.head}*{self.factor}+{self.carry}={self.product:02d};"


@dataclass(frozen=True, slots=True)
class Multiplication:
    """A number and what it is multiplied by."""

    number: str
    factor: int

    @property
    def text(self) -> str:
        """The problem in words."""
        return f"Multiply {self.number} by {self.factor}."

    @property
    def answer(self) -> str:
        """The product."""
        return str(int(self.number) * self.factor)

    def line(self, index: int, carry: int) -> Line:
        """Return the line of a digit, counted from the last one, with some carry."""
        place = len(self.number) - 1 - index
        return Line(self.number[:place], int(self.number[place]), self.factor, carry)

    def lines(self) -> tuple[Line, ...]:
        """Return the right lines, in the order in which they are written."""
        lines: list[Line] = []
        carry = 0
        for index in range(len(self.number)):
            lines.append(self.line(index, carry))
            carry = lines[-1].tens
        return tuple(lines)

    @property
    def always_carries(self) -> bool:
        """Whether every line has a tens digit to carry."""
        return all(line.tens for line in self.lines())

    def index_of(self, head: str) -> int | None:
        """Return the number of the line that a head names; None if it names none."""
        heads = [line.head for line in self.lines()]
        return heads.index(head) if head in heads else None


def read_problem(text: str) -> Multiplication | None:
    """Return the problem that a prompt states; None if it states none."""
    found = _PROBLEM.fullmatch(text)
    return Multiplication(found[1], int(found[2])) if found else None


def stated_lines(text: str) -> dict[str, str]:
    """Return the lines of a work that hold, by head in their order.

    A line that is written anew mends the earlier one of its head, and what was built on
    that no longer holds.
    """
    stated: dict[str, str] = {}
    for found in _LINE.finditer(text):
        head = f"{found[1]}.{found[2]}"
        if head in stated:
            heads = list(stated)
            for later in heads[heads.index(head) :]:
                del stated[later]
        stated[head] = found[0]
    return stated


def next_line(problem: Multiplication, trace: str) -> Line | None:
    """Return the first right line that a work lacks; None if it has all."""
    stated = stated_lines(trace)
    for line in problem.lines():
        if stated.get(line.head) != line.text:
            return line
    return None


def first_wrong(problem: Multiplication, trace: str) -> str:
    """Return the head of the first wrong line of a work; "" if none is wrong."""
    right = {line.head: line.text for line in problem.lines()}
    for head, text in stated_lines(trace).items():
        if right.get(head) != text:
            return head
    return ""


def split_of(problem: Multiplication) -> Split:
    """Return the split that owns a problem: one in five is for testing."""
    digest = hashlib.sha256(problem.text.encode()).digest()
    return "test" if digest[0] % TEST_SHARE == 0 else "train"


def draw_multiplication(
    rng: np.random.Generator, digits: int, split: Split
) -> Multiplication:
    """Draw a problem of a split in which every line carries."""
    while True:
        number = "".join(map(str, rng.integers(BASE, size=digits)))
        factor = int(rng.integers(MIN_FACTOR, MAX_FACTOR + 1))
        problem = Multiplication(number, factor)
        if problem.always_carries and split_of(problem) == split:
            return problem


@dataclass(frozen=True)
class SkillSource:
    """Problems of the skill world, endless.

    Args:
        seed: Draws the problems.
        digits: Of every number. Those of 5 and 6 are longer than what is trained on,
            and are measured apart.

    Raises:
        ConfigError: A value is out of range; the message names it.
    """

    seed: int = 0
    digits: int = DIGITS
    default_agents: ClassVar[str] = "experiments.worlds.skill:SkillAgent"

    def __post_init__(self) -> None:
        _check_whole("seed", self.seed, 0)
        _check_whole("digits", self.digits, 1, MAX_DIGITS)

    def num_tasks(self, split: Split) -> int | None:
        """Endless."""
        return None

    def task(self, split: Split, index: int) -> Task:
        """Return problem `index` of a split."""
        rng = drawing(
            Draw.SKILL_PROBLEM, self.seed, self.digits, int(split == "test"), index
        )
        problem = draw_multiplication(rng, self.digits, split)
        return Task(
            id=f"skill-{self.seed}-{self.digits}-{split}-{index}",
            prompt=problem.text,
            answer=problem.answer,
            meta={"digits": self.digits},
            source="skill",
            licence="Apache-2.0",
        )


def _check_whole(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise ConfigError unless an option is a whole number within bounds."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if is_whole and low <= value and (high is None or value <= high):  # type: ignore[operator]
        return
    bounds = f"{low} or more" if high is None else f"{low} to {high}"
    raise ConfigError(
        f"skill world: {name}={value!r} must be a whole number, {bounds}."
    )


@dataclass(eq=False)
class SkillAgent:
    """Answers any role's request about a problem of the skill world, exactly.

    Args:
        wrong: Probability that a reply misleads: a line with another carry, a false
            rule, the opposite verdict. Drawn from the request's seed.

    Raises:
        ConfigError: The source has other problems, or the probability is outside 0 to
            1.
    """

    source: TaskSource
    wrong: float = 0.0
    agent_id = "skill"

    def __post_init__(self) -> None:
        if not isinstance(self.source, SkillSource):
            raise ConfigError(
                "agents: 'experiments.worlds.skill:SkillAgent' knows the skill world"
                " only; use agents='none' with this source."
            )
        check_share("skill agent: wrong", self.wrong)

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer; "unknown;" where the request is not about a problem of this world."""
        rng = drawing(Draw.SKILL_AGENT, request.seed)
        is_lie = bool(rng.random() < self.wrong)
        text = self._say(request, rng if is_lie else None)
        return AgentReply(text=text, tokens=len(text.split()))

    def _say(self, request: AgentRequest, lie: np.random.Generator | None) -> str:
        """Return the reply's text.

        Args:
            lie: Draws what is stated instead of the truth; None: no lie.
        """
        if request.query.strip() != QUERIES.get(request.kind):  # type: ignore[call-overload]
            return UNKNOWN
        if request.kind == "knowledge":
            return RULE if lie is None else FALSE_RULE
        problem = read_problem(request.problem)
        if problem is None:
            return UNKNOWN
        if request.kind == "reason":
            return next_step(problem, request.trace, lie)
        return verdict(problem, request.trace, is_lie=lie is not None)


def next_step(
    problem: Multiplication, trace: str, lie: np.random.Generator | None
) -> str:
    """Return what the Reasoning Agent says of a work.

    Args:
        lie: Draws another carry; None: no lie.
    """
    line = next_line(problem, trace)
    if line is None:
        return UNKNOWN
    if lie is not None:
        # Carries are below the factor: this is one of the others.
        distance = int(lie.integers(1, line.factor))
        carry = (line.carry + distance) % line.factor
        line = Line(line.rest, line.digit, line.factor, carry)
    return line.text


def verdict(problem: Multiplication, trace: str, *, is_lie: bool) -> str:
    """Return what the Verify Agent says of a work.

    A lie finds nothing wrong where something is, and else fault with the last line.
    """
    stated = stated_lines(trace)
    if not stated:
        return UNKNOWN
    head = first_wrong(problem, trace)
    if is_lie:
        head = "" if head else list(stated)[-1]
    return f"wrong at {head};" if head else RIGHT


def check_share(what: str, value: object) -> None:
    """Raise ConfigError unless a value is a number from 0 to 1; `what` names it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:  # type: ignore[operator]
        raise ConfigError(f"{what}={value!r} must be a number from 0 to 1.")


def skill_rules(kinds: Sequence[ConsultKind] = CONSULT_KINDS) -> RuleSettings:
    """Return the limits and prompts that the policies of this world were taught.

    Args:
        kinds: The roles that may be consulted; the prompt names them.
    """
    return RuleSettings(
        plain_prompt=PLAIN_PROMPT,
        consult_prompt=f"{PLAIN_PROMPT} You may consult {', '.join(kinds)}.",
        kinds=tuple(kinds),
        consult_budget=8,
        max_turns=12,
        max_policy_tokens=224,
        max_context_tokens=768,
    )


_RULES = skill_rules()
OPTIONS = {
    "source": "experiments.worlds.skill:SkillSource",
    "rules": {
        name: getattr(_RULES, name)
        for name in RuleSettings.__dataclass_fields__
        if getattr(_RULES, name) is not None
    },
}
"""What the ids below register: all three roles may be consulted."""
gym.register(
    "Worlds/AIPO-Skill-Turn-v0", entry_point="aipo_env:TurnEnv", kwargs=OPTIONS
)
gym.register("Worlds/AIPO-Skill-v0", entry_point="aipo_env:TokenEnv", kwargs=OPTIONS)
