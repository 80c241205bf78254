"""Runs tests that are Python, in a sandbox without the program that they test.

What they call is a stand-in. It knows results that the program gave before, in
sandboxes of its own, and otherwise notes what is to be asked of it. So the program
never meets its tests, and decides nothing but the values it returns.
"""

import ast
import builtins
import json
import random
from types import CodeType, SimpleNamespace
from typing import Any

from aipo_env.sandboxes.values import pack, unpack

_UNKNOWN = "__unknown__"
"""The name of `Unknown` among those of the tests."""
_SEED = 0
"""The tests are run again for every answer, and must ask the same then."""
RAISED = "raised"
"""The tag of a form that stands for an exception: what it is called, and a reason."""
_NO_VALUE = '{"other":'
"""How a form of `pack` begins that stands for no plain value; no text holds it."""


class Unknown(BaseException):
    """A result is needed that the program has not been asked for."""


class _Apart(ast.NodeTransformer):
    """Puts assertions, and calls, apart: one that waits holds up no other."""

    def _apart(self, node: ast.stmt) -> ast.Try:
        waits = ast.ExceptHandler(ast.Name(_UNKNOWN, ast.Load()), None, [ast.Pass()])
        return ast.Try([node], [waits], [], [])

    visit_Assert = visit_Expr = _apart


class _StandIn:
    """What the tests call."""

    def __init__(self, known: dict[str, str], name: str) -> None:
        self.__name__ = name
        self.known = known
        self.raised: list[tuple[Exception, str]] = []
        self.num_known = 0
        self.fault = ""
        self.asked: dict[str, None] = {}  # a set that keeps its order

    def __call__(self, *args: Any, **named: Any) -> Any:
        form = {"args": pack(list(args)), "named": {}}
        for name, value in named.items():
            form["named"][name] = pack(value)  # type: ignore[index]
        call = json.dumps(form)
        if _NO_VALUE in call:
            self.fault = "the tests call it with what is no plain value"
            raise Unknown
        if call not in self.known:
            self.asked[call] = None
            raise Unknown
        self.num_known += 1
        error = None
        try:
            result: Any = json.loads(self.known[call])
            if not isinstance(result, dict) or result.keys() != {RAISED}:
                return unpack(result)
            name, reason = map(str, result[RAISED])
            error = _error_of(name, reason)
        except Exception:  # the program wrote it
            return object()
        self.raised.append((error, reason))
        raise error

    def reason_of(self, error: Exception) -> str:
        """Return why the program raised an error; empty if it is not one of its."""
        reasons = [reason for one, reason in self.raised if one is error]
        return reasons[0] if reasons else ""


def _error_of(name: str, reason: str) -> Exception:
    """Return an exception of Python's own of a name; of another one an `Exception`."""
    kind = vars(builtins).get(name)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(reason.partition(": ")[2])
        except TypeError:  # it takes more than a message
            pass
    return Exception(reason)


def judge(prelude: str, code: str, entry: str, known: dict[str, str]) -> str:
    """Run tests with what is known of a program.

    Args:
        prelude: Python that stands before the tests, and before every program.
        code: The tests.
        entry: What they call: "name" or "Class.name".
        known: What the program returned or raised, by what it was called with, as JSON.

    Returns:
        JSON with one of "asked", calls whose results are needed; "passed", true;
        "failed", why the program does not pass; "raised", what it raised and the tests
        do not catch; "fault", what is wrong with the tests.
    """
    random.seed(_SEED)
    owner, _, name = entry.rpartition(".")
    stand_in = _StandIn(known, name)
    names: dict[str, Any] = {"__name__": "tests"}
    fault = raised = ""
    try:
        exec(_compiled(prelude), names)
        names[owner or name] = stand_in
        if owner:
            names[owner] = lambda: SimpleNamespace(**{name: stand_in})
        names[_UNKNOWN] = Unknown
        tree = ast.fix_missing_locations(_Apart().visit(ast.parse(code)))
        exec(compile(tree, "<tests>", "exec"), names)
    except Unknown:
        pass
    except Exception as error:
        raised = stand_in.reason_of(error)
        fault = f"{type(error).__name__}: {error}"
        if isinstance(error, AssertionError):
            fault = f"an assertion does not hold, line {_last_line(error)}"
    # What was left out for want of a result may be why the rest failed.
    if stand_in.asked and not stand_in.fault:
        return json.dumps({"asked": list(stand_in.asked)})
    fault = stand_in.fault or fault
    # Before the program has said anything it can be no fault of its; after that, its
    # results may be what the tests stumble over.
    if not stand_in.num_known:
        return json.dumps({"fault": fault or f"the tests never call {entry}"})
    if raised:
        return json.dumps({RAISED: raised})
    return json.dumps({"failed": fault} if fault else {"passed": True})


def _compiled(prelude: str) -> CodeType:
    """Return the code of a prelude, which may be a function without a body."""
    try:
        return compile(prelude, "<prelude>", "exec")
    except SyntaxError:
        return compile(f"{prelude.rstrip()}\n    pass\n", "<prelude>", "exec")


def _last_line(error: BaseException) -> int:
    """Return the line on which an error was raised."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace.tb_lineno if trace else 0
