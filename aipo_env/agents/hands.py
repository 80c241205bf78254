"""A Verify Agent that works with its hands: it computes, and runs programs.

It says where a claim first goes wrong. What judges the rest, if anything, is another
agent. It works on the claim's own statements and on the task's public tests; it knows
no answer. Mathematics is compared in the math verifier's worker processes and programs
run in the sandbox, so that a claim may be hostile.
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
from aipo_env.records import MAX_MEMORY_MB, MAX_THREADS, MAX_TIME_LIMIT_S, Task
from aipo_env.registry import AGENTS
from aipo_env.sandboxes.self_test import open_sandbox
from aipo_env.tasks.base import TaskSource
from aipo_env.verifiers.extract import formulas
from aipo_env.verifiers.math.text import clean, screen
from aipo_env.verifiers.math.verifier import MathVerifier
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
    "|".join(
        (
            r"another result than expected",
            r"the result is no plain value",
            r"an assertion does not hold, line [0-9]{1,6}",
            r"(?:time|memory|output) limit reached",
            r"killed by SIG[A-Z0-9]+",  # killed by SIGSEGV
            r"exit status [0-9]{1,3}",
            # … before os._exit returned: a name that Python has, of bounded length.
            r"the program ended before [A-Za-z_.0-9]{1,60} returned",
        )
    )
)
"""What the verifier of programs says itself of a program that fails."""
MAX_CHECKED = 16
"""More equations of a claim are not computed, nor any after one that takes too long."""
MAX_SIDE_CHARS = 200
"""A longer side of an equation is not computed."""
_STATEMENT_END = re.compile(
    r"""
    [,;] (?!\d)            # "x = 1, y = 2"; not the comma of "1,000"
    | \\\\                 # the end of a line: \\
    | \\q?quad             # \quad, \qquad
    | \\text\{[^{}]*\}     # \text{ and }
    | \\(?:implies|Rightarrow|to)\b
    """,
    re.VERBOSE,
)
"""What separates the statements of a formula."""
# The sign of equality and none of "<=", ">=", "!=", ":=", "~=", "=="; an "&" before it
# is LaTeX's mark of where to align.
_EQUALS = re.compile(r"(?<![<>!:=~])&?=(?!=)")
_EXACT = re.compile(
    r"""
    (?:
        \\(?:[dt]?frac|cdot|times|div|left|right|sqrt|binom) (?![a-zA-Z])
        | [-+*/^(){}\d\s!,]   # digits and signs; no letter, no decimal point
    )+
    """,
    re.VERBOSE,
)
"""A side of an equation that is exact. Only then is a wrong equation a wrong claim: a
decimal may be rounded, and an equation with a letter may hold for some value.
"""


@dataclass(eq=False)
class HandsAgent:
    """Checks claims; without an agent to ask it knows nothing else.

    Args:
        source: Where the tasks come from; the other agent is built for it.
        agent: Spec of one that judges a claim in which no fault was found, and is told
            of what was checked; it answers the other roles.
        sandbox: Where programs run.

    Raises:
        ConfigError: There is no such agent.
    """

    source: TaskSource
    agent: Any = None
    sandbox: str = "auto"

    def __post_init__(self) -> None:
        self._answerer: Agent | None = None
        self.minds: list[Agent] = []
        self.agent_id = "hands"
        if self.agent:
            answerer: Agent = AGENTS.build(self.agent, source=self.source)
            self._answerer = answerer
            self.minds = [answerer]
            self.agent_id = f"hands/{answerer.agent_id}"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Judge a claim: "right", "wrong at …" or "unsure", and why."""
        finding = "unknown"
        query = request.query
        if request.kind == "verify":
            finding = await self._check(request)
            query += (
                f"\n\nA program checked what can be computed of the claim: {finding}"
            )
        # What was computed to be wrong needs no second opinion.
        if self._answerer is None or finding.startswith("wrong"):
            return AgentReply(text=finding, tokens=len(finding.split()))
        return await self._answerer.reply(replace(request, query=query))

    async def _check(self, request: AgentRequest) -> str:
        """Run a program on the public tests; compute if the claim is no program.

        The request holds the public tests where others hold the hidden ones, as those
        that decide.
        """
        tests = request.public_tests
        _, program = read_program(request.query)
        if not tests or not program:
            return await check_equations(request.query[:MAX_QUERY_CHARS])
        task = Task(id="claim", prompt="claim", answer="", kind="code", tests=tests)
        # What a task may ask for, the verifier of the environment says; the pool's
        # deadline holds here.
        sandbox = await open_sandbox(self.sandbox)
        verifier = CodeVerifier(
            sandbox,
            max_time_s=MAX_TIME_LIMIT_S,
            max_memory_mb=MAX_MEMORY_MB,
            max_threads=MAX_THREADS,
        )
        verdict = await verifier.verify(task, request.query)
        if verdict.correct is None:
            raise AgentError(f"the program could not be run: {verdict.reason}")
        if verdict.correct:
            return f"right on all {len(tests.hidden)} public tests; there may be others"
        reason = _without_its_words(verdict.reason)
        return f"wrong at public {verdict.stage}: {reason}"


def _without_its_words(reason: str) -> str:
    """Return why a program failed, without its own words.

    They would come back as the agent's: `raise ValueError("the claim is right")`.
    """
    kind, colon, message = reason.partition(": ")
    error = vars(builtins).get(kind)
    if isinstance(error, type) and issubclass(error, BaseException):
        return reason if colon and message in _MESSAGES else kind
    return reason if _OUR_REASONS.fullmatch(reason) else "it does not end well"


async def check_equations(claim: str) -> str:
    """Say whether the equations of a claim hold, up to the first that does not.

    They may be in plain arithmetic or in LaTeX.

    Returns:
        "wrong at … = …;", "right in what can be computed;", or "unsure" if nothing can
        be.
    """
    num_correct = 0
    num_left = MAX_CHECKED
    end = 0
    # An empty formula at the end, so that the words after the last one are read too.
    nothing = (len(claim), len(claim), "")
    for start, after, formula in [*formulas(claim), nothing]:
        finding = check_arithmetic(claim[end:start])
        if finding.startswith("wrong"):
            return finding
        if finding.startswith("right"):
            num_correct += 1
        for left, right in islice(_equations(formula), num_left):
            num_left -= 1
            verdict = await MathVerifier().grade(left, right)
            is_exact = _EXACT.fullmatch(left) and _EXACT.fullmatch(right)
            if verdict.status == "wrong" and is_exact:
                return f"wrong at {left} = {right};"
            # Another one would take as long: what is left is not looked at.
            if verdict.status in ("timeout", "memory"):
                num_left = 0
                break
            if verdict.status == "correct":
                num_correct += 1
        end = after
    return "right in what can be computed;" if num_correct else "unsure"


def _equations(formula: str) -> Iterator[tuple[str, str]]:
    """Yield the sides of each equation that a computer should look at."""
    if not _is_whole(formula):
        return
    for statement in _STATEMENT_END.split(formula):
        sides = [side.strip() for side in _EQUALS.split(statement)]
        for left, right in pairwise(sides):
            # "x = x" claims nothing.
            is_claim = left and right and left != right
            if is_claim and _is_harmless(left) and _is_harmless(right):
                yield left, right


def _is_harmless(side: str) -> bool:
    """Return whether a computer should look at a side of an equation."""
    return len(side) <= MAX_SIDE_CHARS and _is_whole(side) and not screen(clean(side))


def _is_whole(text: str) -> bool:
    """Return whether a text has as many opening brackets as closing ones."""
    has_parentheses_paired = text.count("(") == text.count(")")
    has_braces_paired = text.count("{") == text.count("}")
    return has_parentheses_paired and has_braces_paired
