"""An agent without a model: it answers from the notes and hints of a source's tasks."""

import ast
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from operator import add, mul, sub, truediv
from typing import Any

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.errors import ConfigError
from aipo_env.tasks.base import TaskSource, finite_tasks
from aipo_env.verifiers.extract import formulas
from aipo_env.verifiers.math.verifier import MathVerifier

MAX_QUERY_CHARS = 4_000
"""Only this much of a query is read."""
MAX_EQUATIONS = 200
"""Equations between plain numbers that are checked of a query, at most."""
# From a digit or a bracket to a digit or a bracket: "7", "(2 + 3) * 4", "1.5/3". A full
# stop counts as a decimal point only, and the length is bounded, so that a query of
# digits alone is searched in linear time.
_TERM = r"[\d(](?:(?:[\d() +*/×÷−-]|\.(?=\d)){0,120}[\d)])?"
# Nothing may run on before or after a term: no variable, power, unit or further
# operator. What is cut out of a longer formula may be wrong where the whole is right.
_EQUATION = re.compile(
    rf"""
    (?<! [\w.^)\]}}%·!√+*/×÷−-] )     # not the 2 of "x2", "1.2", "-2", "√2"
    (?<! [\d^)%·√+*/×÷−-] [ ] )       # nor that of "3 2" or "x + 2"
    ( {_TERM} )                       # the left side
    [ ]? = [ ]?
    (?=                               # looked at only: "1 + 1 = 2 = 3" has two
        ( -? {_TERM} )                # the right side
        (?! [\w(^%·!√]                # not if it goes on: "2x", "2(", "2^3", "2%"
          | \.\d                      # or is cut short: "2.5"
          | [ ]? [+*/×÷−-]            # or another term follows: "2 + x"
        )
    )
    """,
    re.VERBOSE,
)
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-"})
"""Signs of mathematics that Python does not read."""
_OPERATORS: Any = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv}


@dataclass(eq=False)
class NotesAgent:
    """Answers any role's requests from the notes and hints of a finite source's tasks.

    These are `meta["notes"]`, `meta["hint"]` and `meta["mistakes"]`. For knowledge
    every noted term that stands in a query is explained; for reason it gives the hint
    of the problem; for verify it checks every `a op b = c` of the query exactly, then
    whether the query's result is that of a typical mistake: "right;", "wrong at …;" or
    "unsure". It says so when it knows nothing.

    Raises:
        ConfigError: The source is endless, or its tasks come without notes.
    """

    source: TaskSource
    agent_id = "notes"

    def __post_init__(self) -> None:
        self._definitions: dict[str, str] = {}
        self._hints: dict[str, str] = {}
        self._mistakes: dict[str, dict[str, str]] = {}
        for task in finite_tasks(self.source):
            self._definitions |= task.meta.get("notes", {})
            if "hint" in task.meta:
                self._hints[task.prompt] = task.meta["hint"]
            if "mistakes" in task.meta:
                self._mistakes[task.prompt] = task.meta["mistakes"]
        if not self._definitions and not self._hints:
            raise ConfigError(
                "agents: 'notes' answers from meta.notes and meta.hint of the tasks,"
                " and this source has neither. Use agents='none' or another agent"
                " with it."
            )

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer one request."""
        query = request.query[:MAX_QUERY_CHARS]
        if request.kind == "verify":
            text = check_arithmetic(query)
            # One that has a typical wrong result may be right in all its arithmetic.
            if not text.startswith("wrong"):
                text = await self._mistake(request.problem, query) or text
        elif request.kind == "reason":
            text = self._hints.get(request.problem, "unknown")
        else:
            explanations = [
                f"{term}: {definition}"
                for term, definition in self._definitions.items()
                if _names(term, query)
            ]
            text = "\n".join(explanations) or "unknown"
        return AgentReply(text=text, tokens=len(text.split()))

    async def _mistake(self, problem: str, claim: str) -> str:
        """Say which mistake leads to the result of a claim; "" if none is known."""
        verifier = MathVerifier()
        candidates = [content for _, _, content in formulas(claim)][
            -MAX_FORMULAS_OF_CLAIM:
        ]
        # Of prose without a formula, the last number is what it comes to.
        candidates = candidates or _NUMBERS.findall(claim)[-1:]
        for result, reason in self._mistakes.get(problem, {}).items():
            for candidate in candidates:
                verdict = await verifier.grade(result, candidate)
                if verdict.correct:
                    return f"wrong at {result}; {reason}"
        return ""


MAX_FORMULAS_OF_CLAIM = 3
"""So many formulas of a claim, the last ones, are compared with wrong results."""
_NUMBERS = re.compile(r"[-+]?\d{1,30}(?:\.\d{1,30})?(?:/\d{1,30})?")


def check_arithmetic(text: str) -> str:
    """Say whether every equation between plain arithmetic terms holds exactly.

    Returns:
        "right;", "wrong at 2+2 = 5;" for the first that does not hold, or "unsure" if
        the text has none.
    """
    # 1,000 is one number; a comma elsewhere separates.
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    is_checked = False
    for equation in islice(_EQUATION.finditer(text), MAX_EQUATIONS):
        left, right = equation.groups()
        # "4 = 4" claims nothing; the sign of a negative right side is no operator.
        has_operator = bool(set(left + right[1:]) & set("+-*/×÷−"))
        left_value = _value(left)
        right_value = _value(right)
        if left_value is None or right_value is None or not has_operator:
            continue
        if left_value != right_value:
            return f"wrong at {left} = {right};"
        is_checked = True
    return "right;" if is_checked else "unsure"


def _value(term: str) -> Fraction | None:
    """Return the exact value of a plain arithmetic term, if it is one."""
    term = term.translate(_SIGNS)

    def evaluate(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            operator = _OPERATORS[type(node.op)]
            return operator(evaluate(node.left), evaluate(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -evaluate(node.operand)
        # As it is written: a float would round it. What is no number is no fraction
        # either, and what Python reads otherwise, as a call "2(3)", is refused so.
        return Fraction(term[node.col_offset : node.end_col_offset])

    try:
        return Fraction(evaluate(ast.parse(term, mode="eval").body))
    except (SyntaxError, ValueError, ZeroDivisionError, MemoryError, RecursionError):
        return None


def _names(term: str, query: str) -> bool:
    """Return whether a query names a term, as whole words."""
    # Not \b: a term may begin or end with what is no letter, as "p-group (finite)".
    pattern = rf"(?<!\w){re.escape(term)}(?!\w)"
    return re.search(pattern, query, re.IGNORECASE) is not None
