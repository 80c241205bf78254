"""A Verify Agent with hands: it computes what a claim states, runs its program, and
says where it first goes wrong.

It works on the claim's own statements and on the task's public tests; it knows no
answer. Mathematics is compared in the math verifier's worker processes and programs run
in the sandbox, so that a claim may be hostile.
"""

import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any

from aipo_env.agents.base import Agent, AgentReply, AgentRequest
from aipo_env.agents.notes import MAX_QUERY_CHARS, check_arithmetic
from aipo_env.errors import AgentError
from aipo_env.records import MAX_MEMORY_MB, MAX_TIME_LIMIT_S, Task
from aipo_env.registry import AGENTS
from aipo_env.sandboxes.self_test import open_sandbox
from aipo_env.tasks.base import TaskSource
from aipo_env.verifiers.math_equiv import MathVerifier
from aipo_env.verifiers.math_extract import formulas
from aipo_env.verifiers.math_text import clean, screen
from aipo_env.verifiers.unit_tests import CodeVerifier, read_program

_MESSAGES = (
    "division by zero",
    "float division by zero",
    "integer division or modulo by zero",
    "integer modulo by zero",
    "list index out of range",
    "list assignment index out of range",
    "string index out of range",
    "tuple index out of range",
    "pop from empty list",
    "math domain error",
    "EOF when reading a line",
    "maximum recursion depth exceeded",
    "maximum recursion depth exceeded in comparison",
    "invalid syntax",
    "unexpected indent",
)
"""What Python itself says of an error; anything else may be the program's words."""
_OUR_REASONS = re.compile(
    r"another result than expected|the result is no plain value"
    r"|(?:time|memory|output) limit reached|killed by SIG[A-Z0-9]+|exit status"
    r" [0-9]{1,3}"
    r"|the program ended before [A-Za-z_.0-9]{1,60} returned"
)
MAX_EQUATIONS = 16
"""More equations of a claim are not computed, nor any after one that takes too long."""
MAX_SIDE_CHARS = 200
"""A longer side of an equation is not computed."""
_STATEMENT_END = re.compile(
    r"[,;](?!\d)|\\\\|\\q?quad|\\text\{[^{}]*\}|\\(?:implies|Rightarrow|to)\b"
)
_EQUALS = re.compile(r"(?<![<>!:=~])&?=(?!=)")
# Only what is exact can be wrong: a decimal may be rounded, an equation with a letter
# may hold for some value.
_EXACT = re.compile(
    r"(?:\\(?:[dt]?frac|cdot|times|div|left|right|sqrt|binom)(?![a-zA-Z])|[-+*/^(){}\d\s!,])+"
)


@dataclass(eq=False)
class HandsAgent:
    """Checks claims; without an agent for its mind it knows nothing else.

    Args:
        agent: Spec of one that judges a claim in which nothing was found wrong, and is
            told what was found; it answers the other roles.
        sandbox: Where programs run.

    Raises:
        ConfigError: There is no such agent.
    """

    source: TaskSource
    agent: Any = None
    sandbox: str = "auto"

    def __post_init__(self) -> None:
        self._mind: Agent | None = self.agent and AGENTS.build(
            self.agent, source=self.source
        )
        self.minds = [self._mind] if self._mind else []
        self.agent_id = f"hands/{self._mind.agent_id}" if self._mind else "hands"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Judge a claim: "right", "wrong at …" or "unsure", and why."""
        found, told = "unknown", request.query
        if request.kind == "verify":
            found = await self._check(request)
            told += f"\n\nA program checked what can be computed of the claim: {found}"
        if not self._mind or found.startswith("wrong"):
            return AgentReply(text=found, tokens=len(found.split()))
        return await self._mind.reply(replace(request, query=told))

    async def _check(self, request: AgentRequest) -> str:
        """Run a program on the public tests, which the request holds as the ones that
        decide; else compute.
        """
        tests = request.public_tests
        if not tests or not read_program(request.query)[1]:
            return await check_equations(request.query[:MAX_QUERY_CHARS])
        task = Task(id="claim", prompt="claim", answer="", kind="code", tests=tests)
        # What a task may ask for, the verifier of the environment says; the pool's
        # deadline holds here.
        sandbox = await open_sandbox(self.sandbox)
        verifier = CodeVerifier(
            sandbox, max_time_s=MAX_TIME_LIMIT_S, max_memory_mb=MAX_MEMORY_MB
        )
        verdict = await verifier.verify(task, request.query)
        if verdict.correct is None:
            raise AgentError(f"the program could not be run: {verdict.reason}")
        if verdict.correct:
            return f"right on all {len(tests.hidden)} public tests; there may be others"
        return f"wrong at public {verdict.stage}: {_named(verdict.reason)}"


def _named(reason: str) -> str:
    """Return why a program failed, without its own words, which would come back as the
    agent's.
    """
    kind, colon, message = reason.partition(": ")
    error = vars(builtins).get(kind)
    if isinstance(error, type) and issubclass(error, BaseException):
        return reason if colon and message in _MESSAGES else kind
    return reason if _OUR_REASONS.fullmatch(reason) else "it does not end well"


async def check_equations(claim: str) -> str:
    """Say whether the equations of a claim hold, in plain arithmetic or in LaTeX, up to
    the first that does not.
    """
    num_held, num_left, end = 0, MAX_EQUATIONS, 0
    for start, after, formula in [*formulas(claim), (len(claim), len(claim), "")]:
        found = check_arithmetic(claim[end:start])
        if found.startswith("wrong"):
            return found
        num_held += found.startswith("right")
        for left, right in islice(_equations(formula), num_left):
            num_left -= 1
            status = (await MathVerifier().grade(left, right)).status
            is_exact = _EXACT.fullmatch(left) and _EXACT.fullmatch(right)
            if status == "wrong" and is_exact:
                return f"wrong at {left} = {right};"
            if status in ("timeout", "memory"):
                num_left = 0
                break
            num_held += status == "correct"
        end = after
    return "right in what can be computed;" if num_held else "unsure"


def _equations(formula: str) -> Iterator[tuple[str, str]]:
    """Yield the sides of each equation, without those that no computer should look
    at.
    """
    if not _is_whole(formula):
        return
    for statement in _STATEMENT_END.split(formula):
        sides = [side.strip() for side in _EQUALS.split(statement)]
        for left, right in pairwise(sides):
            is_said = left and right and left != right
            if is_said and _is_harmless(left) and _is_harmless(right):
                yield left, right


def _is_harmless(side: str) -> bool:
    """Return whether a computer should look at a side of an equation."""
    return len(side) <= MAX_SIDE_CHARS and _is_whole(side) and not screen(clean(side))


def _is_whole(text: str) -> bool:
    return all(text.count(opened) == text.count(end) for opened, end in ("()", "{}"))
