"""The toy world: four-digit codes, named moves, and three kinds of operator that block
an unaided policy.

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
from itertools import permutations
from typing import Any

import numpy as np

from aipo_env.errors import ConfigError, check_choice, check_whole
from aipo_env.keys import Salt, keyed_rng
from aipo_env.records import CONSULT_KINDS, ConsultKind, Split

MAX_LUCK = 1.1e-3
"""Highest probability of hitting a two-move rule by a uniform guess: no task may be a
matter of luck.
"""
MAX_OPERATORS = 24
"""Operators of one kind that a world can hold."""


def _names(count: int) -> tuple[str, ...]:
    """Return `count` distinct two-syllable names in a fixed, well-mixed order."""
    starts, vowels, middles, ends = "bdklmnrtvz", "aeiou", "lmnrvz", "aeo"
    everything = [
        a + b + c + d for a in starts for b in vowels for c in middles for d in ends
    ]
    return tuple(everything[(index * 41) % len(everything)] for index in range(count))


_ALL_NAMES = _names(100 + 3 * MAX_OPERATORS)
MOVES = _ALL_NAMES[:100]
"""The public moves."""
OPERATOR_NAMES: dict[ConsultKind, tuple[str, ...]] = {
    kind: _ALL_NAMES[100 + i * MAX_OPERATORS : 100 + (i + 1) * MAX_OPERATORS]
    for i, kind in enumerate(CONSULT_KINDS)
}
"""The names a world draws its operators from; a name tells the kind of its
bottleneck.
"""


def shift_of(move: str) -> str:
    """Return the four-digit shift of a public move, the same in every world."""
    index = MOVES.index(move)
    return f"{(index * 37 + 11) % 100:02d}{(index * 59 + 43) % 100:02d}"


def believed_move(operator: str) -> str:
    """Return the move that the shipped policy wrongly takes a verify operator to be."""
    return MOVES[(OPERATOR_NAMES["verify"].index(operator) * 29 + 7) % len(MOVES)]


def add_codes(code: str, shift: str) -> str:
    """Add two codes digit by digit, modulo 10: `add_codes("3799", "5802") ==
    "8591"`.
    """
    return "".join(
        str((int(a) + int(b)) % 10) for a, b in zip(code, shift, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Operator:
    """A named operator and its hidden rule: one shift (knowledge), two moves, or one
    move (verify).
    """

    name: str
    kind: ConsultKind
    rule: tuple[str, ...]

    def statements(self) -> tuple[str, ...]:
        """Return the sentences that state the rule, in the order a solution needs
        them.
        """
        if self.kind == "reason":
            return (
                f"{self.name} first {self.rule[0]};",
                f"{self.name} then {self.rule[1]};",
            )
        return (f"{self.name}={self.rule[0]};",)

    def shifts(self) -> tuple[str, ...]:
        """Return the shifts that the operator applies, one after the other."""
        if self.kind == "knowledge":
            return (self.rule[0].replace("#", ""),)
        return tuple(shift_of(move) for move in self.rule)


@dataclass(frozen=True, slots=True)
class Problem:
    """A code and the operators to apply to it."""

    start: str
    operators: tuple[Operator, ...]

    @property
    def text(self) -> str:
        """The problem in words."""
        return (
            f"Apply {', '.join(operator.name for operator in self.operators)} to"
            f" {self.start}."
        )

    @property
    def answer(self) -> str:
        """The code that results."""
        code = self.start
        for operator in self.operators:
            for shift in operator.shifts():
                code = add_codes(code, shift)
        return code


def split_of(start: str, names: Sequence[str]) -> Split:
    """Return the split that owns a problem, whatever the world and the order: one in
    five is for testing.
    """
    digest = hashlib.sha256(f"{' '.join(sorted(names))}|{start}".encode()).digest()
    return "test" if digest[0] % 5 == 0 else "train"


def draw_rule(
    kind: ConsultKind, name: str, rng: np.random.Generator
) -> tuple[str, ...]:
    """Draw a rule for an operator; a verify operator never gets the move it is believed
    to be.
    """
    if kind == "knowledge":
        return (f"#{rng.integers(100):02d}#{rng.integers(100):02d}",)
    if kind == "reason":
        return tuple(MOVES[int(i)] for i in rng.choice(len(MOVES), 2, replace=False))
    others = [move for move in MOVES if move != believed_move(name)]
    return (others[int(rng.integers(len(others)))],)


@cache
def _sums() -> Counter[str]:
    """Count the pairs of different moves by what they come to together."""
    return Counter(
        add_codes(shift_of(one), shift_of(other))
        for one, other in permutations(MOVES, 2)
    )


def luck(rule: tuple[str, ...]) -> float:
    """Return how likely two moves drawn at random come to the same as these two."""
    return _sums()[add_codes(*map(shift_of, rule))] / _sums().total()


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
        check_whole("toy world: difficulty", self.difficulty, 1, 3)
        check_whole("toy world: seed", self.seed)
        kinds: Any = self.kinds
        object.__setattr__(
            self, "kinds", (kinds,) if isinstance(kinds, str) else tuple(kinds)
        )
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
        drawn = {}
        for kind in CONSULT_KINDS:
            names = OPERATOR_NAMES[kind]
            for index in rng.choice(len(names), self.num_operators, replace=False):
                name = names[int(index)]
                rule = draw_rule(kind, name, rng)
                while kind == "reason" and luck(rule) > MAX_LUCK:
                    rule = draw_rule(kind, name, rng)
                drawn[name] = Operator(name, kind, rule)
        return drawn

    def problem(self, split: Split, index: int) -> Problem:
        """Return problem `index` of a split; kinds take turns, so any run of indices is
        balanced.
        """
        rng = keyed_rng([self.seed], Salt.TOY_PROBLEM, split == "test", index)
        kind = self.kinds[index % len(self.kinds)]
        mine = [
            operator for operator in self.operators.values() if operator.kind == kind
        ]
        usable = [
            operator
            for operator in self.operators.values()
            if operator.kind in self.kinds
        ]
        while True:
            chosen = [mine[int(rng.integers(len(mine)))]]
            chosen += [
                usable[int(rng.integers(len(usable)))]
                for _ in range(self.difficulty - 1)
            ]
            rng.shuffle(chosen)
            start = f"{rng.integers(10_000):04d}"
            if split_of(start, [operator.name for operator in chosen]) == split:
                return Problem(start, tuple(chosen))
