"""An agent without a model: it answers from the notes and hints that come with a
source's tasks.
"""

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

MAX_QUERY_CHARS = 4_000
"""Only this much of a query is read."""
MAX_EQUATIONS = 200
"""Nor more equations between plain numbers."""
_TERM = r"[\d(](?:(?:[\d() +*/×÷−-]|\.(?=\d)){0,120}[\d)])?"
# Nothing may run on before or after a term: no variable, power, unit or further
# operator.
_EQUATION = re.compile(
    rf"(?<![\w.^)\]}}%·!√+*/×÷−-])(?<![\d^)%·√+*/×÷−-] )({_TERM}) ?="
    rf" ?(?=(-?{_TERM})(?![\w(^%·!√]|\.\d| ?[+*/×÷−-]))"
)
_OPERATORS: Any = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv}


@dataclass(eq=False)
class NotesAgent:
    """Answers any role's requests from `meta["notes"]` and `meta["hint"]` of every task
    of a finite source.

    For knowledge every noted term that stands in a query is explained; for reason it
    gives the hint of the problem; for verify it checks every `a op b = c` of the query
    exactly: "right;", "wrong at …;" or "unsure". It says so when it knows nothing.

    Raises:
        ConfigError: The source is endless, or its tasks come without notes.
    """

    source: TaskSource
    agent_id = "notes"

    def __post_init__(self) -> None:
        self._definitions: dict[str, str] = {}
        self._hints: dict[str, str] = {}
        for task in finite_tasks(self.source):
            self._definitions |= task.meta.get("notes", {})
            self._hints |= (
                {task.prompt: task.meta["hint"]} if "hint" in task.meta else {}
            )
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
        elif request.kind == "reason":
            text = self._hints.get(request.problem, "unknown")
        else:
            known = [
                f"{term}: {text}"
                for term, text in self._definitions.items()
                if _names(term, query)
            ]
            text = "\n".join(known) or "unknown"
        return AgentReply(text=text, tokens=len(text.split()))


def check_arithmetic(text: str) -> str:
    """Say whether every equation between plain arithmetic terms in a text holds
    exactly.
    """
    text, checked = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text), False
    for equation in islice(_EQUATION.finditer(text), MAX_EQUATIONS):
        left, right = equation.groups()
        values = _value(left), _value(right)
        if None in values or not set(left + right[1:]) & set("+-*/×÷−"):
            continue
        if values[0] != values[1]:
            return f"wrong at {left} = {right};"
        checked = True
    return "right;" if checked else "unsure"


def _value(term: str) -> Fraction | None:
    """Return the exact value of a plain arithmetic term, if it is one."""
    term = term.translate({ord("×"): "*", ord("÷"): "/", ord("−"): "-"})

    def evaluate(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](evaluate(node.left), evaluate(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -evaluate(node.operand)
        # As it is written: a float would round it. What is no number is no fraction
        # either.
        return Fraction(term[node.col_offset : node.end_col_offset])

    try:
        return Fraction(evaluate(ast.parse(term, mode="eval").body))
    except (SyntaxError, ValueError, ZeroDivisionError, MemoryError, RecursionError):
        return None


def _names(term: str, query: str) -> bool:
    return (
        re.search(rf"(?<!\w){re.escape(term)}(?!\w)", query, re.IGNORECASE) is not None
    )
