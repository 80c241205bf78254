"""Coding problems as public datasets have them: which one a row is of, and its tests.

HumanEval (arXiv 2107.03374) tests a function by Python code, MBPP (arXiv 2108.07732) by
a list of assertions. Nothing of a row is run here.
"""

import ast
import builtins
import keyword
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from aipo_env.tasks import livecodebench
from aipo_env.tasks.rows import Unusable

MAX_UNPACKED_BYTES = 64 * 2**20
"""The packed tests of a row have no more, wherever it comes from."""
_LIMITS = {"time_limit_s": 10.0, "memory_mb": 1024, "packages": ["numpy"]}
"""What a program may take per call; the datasets' own graders limit the time of all
calls together, to 3 s, and nothing else.
"""
_WHOLE = "Give it whole in one ```python block."
_DEFINED = re.compile(r"^def[ \t]+(\w+)", re.MULTILINE)
"""A function that a program defines."""
_CALLED = re.compile(r"(?<![\w.])(\w+)[ \t]*\(")
"""A name that is called, and no method."""


def read_code_problem(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task fields of a row of LiveCodeBench, HumanEval or MBPP.

    Of packed tests no more than `MAX_UNPACKED_BYTES` is read: anybody may write a row.

    Raises:
        Unusable: It is of neither, or cannot be read.
    """
    for column, read in _BY_COLUMN.items():
        if column in row:
            return read(row)
    raise Unusable(
        f"it has none of the columns {', '.join(_BY_COLUMN)}, by which rows of"
        " LiveCodeBench, HumanEval and MBPP are known"
    )


def read_humaneval(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task fields of a row of HumanEval, or one of its form.

    The prompt stands before every program, so one that goes on with it is one, as well
    as one that says it again.

    Raises:
        Unusable: A column is missing or no text.
    """
    start = _text(row, "prompt")
    entry = _text(row, "entry_point")
    code = f"{_text(row, 'test')}\n\ncheck({entry})\n"
    prompt = f"Complete this function.\n```python\n{start.strip()}\n```\n{_WHOLE}"
    tests = {
        "kind": "asserts",
        "entry": entry,
        "hidden": [{"code": code}],
        "prelude": start,
        "solution": _text(row, "canonical_solution", is_needed=False),
        **_LIMITS,
    }
    return {"prompt": prompt, "answer": "", "kind": "code", "tests": tests}


def read_mbpp(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task fields of a row of MBPP, whole or sanitized.

    The policy is shown the tests, which alone say what the function is called.

    Raises:
        Unusable: A column is missing or of another shape, or the tests call no function
            of a name that a program can define.
    """
    column = "text" if "text" in row else "prompt"
    problem = _text(row, column)
    asserts = _texts(row, "test_list")
    if not asserts:
        raise Unusable("its test_list is empty")
    start = _texts(row, "test_imports") if "test_imports" in row else []
    start.append(_text(row, "test_setup_code", is_needed=False))
    prelude = "".join(f"{line}\n" for line in start if line.strip())
    solution = _text(row, "code", is_needed=False)
    shown_tests = "\n".join(asserts)
    prompt = (
        f"{problem.strip()}\n\nYour program must pass these tests.\n```python\n"
        f"{shown_tests}\n```\n{_WHOLE}"
    )
    # Assertions may use what the program that passes imports, in whose file they stand.
    imports = _imports(solution)
    tests = [{"code": imports + code} for code in asserts]
    fields = {
        "kind": "asserts",
        "entry": _entry(solution, asserts),
        "public": tests,
        "hidden": tests,
        "prelude": prelude,
        "solution": solution,
        **_LIMITS,
    }
    return {"prompt": prompt, "answer": "", "kind": "code", "tests": fields}


def _read_livecodebench(row: Mapping[str, Any]) -> dict[str, Any]:
    return livecodebench.read_problem(row, MAX_UNPACKED_BYTES)


_BY_COLUMN = {
    "public_test_cases": _read_livecodebench,
    "entry_point": read_humaneval,
    "test_list": read_mbpp,
}
"""What reads a row that has a column."""


def _imports(solution: str) -> str:
    """Return the statements of a program that import, each on a line of its own."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in texts that are none
            statements = ast.parse(solution).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return ""  # it is no program, and `--solutions` says so
    kinds = (ast.Import, ast.ImportFrom)
    imports = [one for one in statements if isinstance(one, kinds)]
    return "".join(f"{ast.unparse(one)}\n" for one in imports)


def _entry(solution: str, asserts: Iterable[str]) -> str:
    """Return the name of the function that is tested.

    It is the first that the tests call, of those that a program that passes defines; or
    of all that are no builtin, where there is no such program.
    """
    defined = set(_DEFINED.findall(solution))
    for code in asserts:
        for name in _CALLED.findall(code):
            is_other = hasattr(builtins, name) or keyword.iskeyword(name)
            if name in defined or (not defined and not is_other):
                return str(name)
    raise Unusable("its tests call no function that a program defines")


def _text(row: Mapping[str, Any], column: str, is_needed: bool = True) -> str:
    """Return a column that is text; one that is not needed may be absent or empty."""
    value = row.get(column)
    if value is None and not is_needed:
        return ""
    if not isinstance(value, str) or (is_needed and not value.strip()):
        raise Unusable(f"its {column} is no text")
    return value


def _texts(row: Mapping[str, Any], column: str) -> list[str]:
    """Return a column that is a list of texts."""
    values = row.get(column)
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise Unusable(f"its {column} is no list of texts")
    return list(values)
