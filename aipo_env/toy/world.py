"""The toy world: four-digit codes, named moves, and operators that need help.

Of the operators there are three kinds, one for each role of an agent, and each blocks a
policy without help.

A *code* is four digits. A *move* shifts a code: each digit is added modulo 10, nothing
is carried. The hundred moves in `MOVES` are public: the shipped policy knows them by
heart and adds without error. An *operator* is named in a problem ("Apply zura to
3721.") and its rule is drawn from the world's seed:

- knowledge: the operator is a shift of its own, a fact nobody can derive `zura=#58#13;`
- reason: the operator decomposes into two moves, in order `mora first bamo;` `mora then
  dile;`
- verify: the operator equals one move `guna=dile;`, but the policy firmly believes
  that it equals another (`believed_move`), the same in every world

Each blank of a rule is drawn from 100 values (`#58` is one token), and a rule that must
be guessed has two.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import permutations, product
from typing import Any

import numpy as np

from aipo_env.errors import ConfigError, check_choice, check_whole
from aipo_env.keys import Salt, keyed_rng
from aipo_env.records import CONSULT_KINDS, ConsultKind, Split

MAX_LUCK = 1.1e-3
"""Highest probability of hitting a two-move rule by a uniform guess: no task may be a
matter of luck. Two moves that add up to what many others do are drawn again.
"""
MAX_OPERATORS = 24
"""Operators of one kind that a world can hold."""


MAX_DIFFICULTY = 3
"""Operators that one problem may name."""
NUM_VALUES = 100
"""The values of a blank in a rule: two digits, or a move."""
NUM_MOVES = NUM_VALUES
"""The public moves."""
TEST_SHARE = 5
"""One problem in so many is for testing."""
NUM_CODES = 10_000
"""The four-digit codes, 0000 to 9999."""

# Multipliers that have no factor in common with the size of the list that they walk
# through: such a walk meets every element once, and neighbours end up far apart.
_NAME_STRIDE = 41
_LEFT_STRIDE, _LEFT_START = 37, 11
_RIGHT_STRIDE, _RIGHT_START = 59, 43
_BELIEF_STRIDE, _BELIEF_START = 29, 7


def _names(count: int) -> tuple[str, ...]:
    """Return `count` distinct two-syllable names in a fixed, well-mixed order."""
    syllables = product("bdklmnrtvz", "aeiou", "lmnrvz", "aeo")
    everything = ["".join(letters) for letters in syllables]
    return tuple(
        everything[(index * _NAME_STRIDE) % len(everything)] for index in range(count)
    )


def _operator_names(kind: ConsultKind) -> tuple[str, ...]:
    """Return the names that operators of a kind may have, behind those of the moves."""
    first = NUM_MOVES + CONSULT_KINDS.index(kind) * MAX_OPERATORS
    return _ALL_NAMES[first : first + MAX_OPERATORS]


_ALL_NAMES = _names(NUM_MOVES + len(CONSULT_KINDS) * MAX_OPERATORS)
MOVES = _ALL_NAMES[:NUM_MOVES]
"""The public moves."""
OPERATOR_NAMES: dict[ConsultKind, tuple[str, ...]] = {
    kind: _operator_names(kind) for kind in CONSULT_KINDS
}
"""The names a world draws its operators from; a name tells the kind of help it
needs.
"""


def shift_of(move: str) -> str:
    """Return the four-digit shift of a public move, the same in every world."""
    index = MOVES.index(move)
    left = (index * _LEFT_STRIDE + _LEFT_START) % NUM_VALUES
    right = (index * _RIGHT_STRIDE + _RIGHT_START) % NUM_VALUES
    return f"{left:02d}{right:02d}"


def believed_move(operator: str) -> str:
    """Return the move that the shipped policy wrongly takes a verify operator to be."""
    index = OPERATOR_NAMES["verify"].index(operator)
    return MOVES[(index * _BELIEF_STRIDE + _BELIEF_START) % NUM_MOVES]


def add_codes(code: str, shift: str) -> str:
    """Add two codes digit by digit, modulo 10: 3799 and 5802 are 8591."""
    digits = [
        (int(digit) + int(distance)) % 10
        for digit, distance in zip(code, shift, strict=True)
    ]
    return "".join(map(str, digits))


@dataclass(frozen=True, slots=True)
class Operator:
    """A named operator and its hidden rule.

    Args:
        name: As problems name it.
        kind: The role of the agent whose help it needs.
        rule: One shift (knowledge), two moves (reason), or one move (verify).
    """

    name: str
    kind: ConsultKind
    rule: tuple[str, ...]

    def statements(self) -> tuple[str, ...]:
        """Return the sentences that state the rule, in a solution's order."""
        if self.kind == "reason":
            first, second = self.rule
            return (f"{self.name} first {first};", f"{self.name} then {second};")
        [move_or_shift] = self.rule
        return (f"{self.name}={move_or_shift};",)

    def shifts(self) -> tuple[str, ...]:
        """Return the shifts that the operator applies, one after the other."""
        if self.kind == "knowledge":
            # Written "#58#13": each half is one token of the shipped policy.
            [shift] = self.rule
            return (shift.replace("#", ""),)
        return tuple(shift_of(move) for move in self.rule)


@dataclass(frozen=True, slots=True)
class Problem:
    """A code and the operators to apply to it."""

    start: str
    operators: tuple[Operator, ...]

    @property
    def text(self) -> str:
        """The problem in words."""
        names = ", ".join(operator.name for operator in self.operators)
        return f"Apply {names} to {self.start}."

    @property
    def answer(self) -> str:
        """The code that results."""
        code = self.start
        for operator in self.operators:
            for shift in operator.shifts():
                code = add_codes(code, shift)
        return code


def split_of(start: str, names: Sequence[str]) -> Split:
    """Return the split that owns a problem: one in five is for testing.

    It depends neither on the world nor on the order of the operators, so that no
    problem of one split is the other's in disguise.
    """
    in_order = " ".join(sorted(names))
    digest = hashlib.sha256(f"{in_order}|{start}".encode()).digest()
    return "test" if digest[0] % TEST_SHARE == 0 else "train"


def draw_rule(
    kind: ConsultKind, name: str, rng: np.random.Generator
) -> tuple[str, ...]:
    """Draw a rule for an operator.

    A verify operator never gets the move it is believed to be: then the belief would be
    right, and nobody would have to be asked.
    """
    if kind == "knowledge":
        left = rng.integers(NUM_VALUES)
        right = rng.integers(NUM_VALUES)
        return (f"#{left:02d}#{right:02d}",)
    if kind == "reason":
        indices = rng.choice(len(MOVES), 2, replace=False)
        return tuple(MOVES[int(index)] for index in indices)
    believed = believed_move(name)
    others = [move for move in MOVES if move != believed]
    return (others[int(rng.integers(len(others)))],)


@cache
def _sums() -> Counter[str]:
    """Count the pairs of different moves by what they come to together."""
    return Counter(
        add_codes(shift_of(first), shift_of(second))
        for first, second in permutations(MOVES, 2)
    )


def luck(rule: tuple[str, ...]) -> float:
    """Return how likely two moves drawn at random come to the same as these two."""
    first, second = rule
    total_shift = add_codes(shift_of(first), shift_of(second))
    sums = _sums()
    return sums[total_shift] / sums.total()


@dataclass(frozen=True)
class World:
    """All hidden rules of one seed, and an unlimited supply of problems about them.

    Args:
        seed: Draws the operators' names and rules. Training and test share them.
        num_operators: Operators of each kind, 1 to 24.
        difficulty: Operators applied in one problem, 1 to 3.
        kinds: Kinds of bottleneck that problems are drawn from.

    Raises:
        ConfigError: A value is out of range; the message names it.
    """

    seed: int = 0
    num_operators: int = 4
    difficulty: int = 1
    kinds: tuple[ConsultKind, ...] = CONSULT_KINDS

    def __post_init__(self) -> None:
        check_whole("toy world: num_operators", self.num_operators, 1, MAX_OPERATORS)
        check_whole("toy world: difficulty", self.difficulty, 1, MAX_DIFFICULTY)
        check_whole("toy world: seed", self.seed)
        # On a command line one kind is a text, and in JSON several are a list.
        kinds: Any = self.kinds
        kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        object.__setattr__(self, "kinds", kinds)
        if not self.kinds:
            raise ConfigError(
                f"toy world: kinds is empty. Valid: {', '.join(CONSULT_KINDS)}."
            )
        for kind in self.kinds:
            check_choice("toy world: kind", kind, CONSULT_KINDS)

    @cached_property
    def operators(self) -> dict[str, Operator]:
        """Every operator of the world by name."""
        rng = keyed_rng([self.seed], Salt.TOY_WORLD)
        operators: dict[str, Operator] = {}
        # Of every kind, also of those that no problem has: the draws of one kind must
        # not depend on which others are chosen.
        for kind in CONSULT_KINDS:
            names = OPERATOR_NAMES[kind]
            indices = rng.choice(len(names), self.num_operators, replace=False)
            for index in indices:
                name = names[int(index)]
                rule = draw_rule(kind, name, rng)
                while kind == "reason" and luck(rule) > MAX_LUCK:
                    rule = draw_rule(kind, name, rng)
                operators[name] = Operator(name, kind, rule)
        return operators

    def problem(self, split: Split, index: int) -> Problem:
        """Return problem `index` of a split.

        Kinds take turns, so that any run of indices is balanced.
        """
        rng = keyed_rng([self.seed], Salt.TOY_PROBLEM, split == "test", index)
        kind = self.kinds[index % len(self.kinds)]
        operators = self.operators.values()
        of_kind = [operator for operator in operators if operator.kind == kind]
        usable = [operator for operator in operators if operator.kind in self.kinds]
        # Until one falls into the split; four of five do, or one of five.
        while True:
            chosen = [_drawn(of_kind, rng)]
            for _ in range(self.difficulty - 1):
                chosen.append(_drawn(usable, rng))
            # The one that the kind is named after need not stand first.
            rng.shuffle(chosen)
            start = f"{rng.integers(NUM_CODES):04d}"
            names = [operator.name for operator in chosen]
            if split_of(start, names) == split:
                return Problem(start, tuple(chosen))


def _drawn(operators: Sequence[Operator], rng: np.random.Generator) -> Operator:
    """Draw one of some operators."""
    return operators[int(rng.integers(len(operators)))]
