"""LiveCodeBench's coding problems: their prompts, and their tests, unpacked."""

import base64
import pickletools
import zlib
from collections.abc import Mapping
from typing import Any

from aipo_env.tasks.rows import Unusable, read_json

MAX_TEST_BYTES = 512 * 2**20
"""Private tests of the dataset are unpacked up to this size."""
# What pickling a text writes beside the text itself.
_OF_ONE_TEXT = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}
_MODULE_NAMES = (
    "string re datetime collections heapq bisect copy math random statistics itertools"
    " functools operator io sys json"
)
_MODULES = _MODULE_NAMES.split()
_STARS = [f"from {name} import *; " for name in (*_MODULES, "builtins", "typing")]
# In one line, so that line numbers stay nearly right.
_PRELUDE = (
    f"{''.join(_STARS)}import {', '.join(_MODULES)}; sys.setrecursionlimit(50000)\n"
)
"""What the benchmark puts before every program; starter code relies on it."""
_TIME_LIMIT_S = 6.0
"""Seconds per test: the benchmark's own limit."""
_LIMITS = {"memory_mb": 1024, "output_mb": 16, "threads": 16, "packages": ["numpy"]}
"""What else a program may take per test; the benchmark has no limits of these."""
_PROGRAM = (
    "Write a Python program that reads standard input and prints to standard output. "
)
_WHOLE = "Give it whole in one ```python block."


def read_problem(
    row: Mapping[str, Any], max_test_bytes: int = MAX_TEST_BYTES
) -> dict[str, Any]:
    """Return the task fields of a row of `code_generation_lite`.

    All tests decide, the public ones too, by the rules of the benchmark.

    Args:
        max_test_bytes: Private tests are unpacked up to this size.

    Raises:
        Unusable: A column is missing or of another shape, or the private tests are
            none.
    """
    try:
        entry = read_json(row["metadata"]).get("func_name") or ""
        public_text = row["public_test_cases"]
        private_text = row["private_test_cases"]
        # Some problems have a list here, and some what it is packed in.
        if not private_text.lstrip().startswith("["):
            private_text = _unpack(private_text, max_test_bytes)
        is_function = bool(entry)
        public = [_test(test, is_function) for test in read_json(public_text)]
        private = [_test(test, is_function) for test in read_json(private_text)]
        prompt = _prompt(row, is_function)
        if entry and not entry.isidentifier():
            raise Unusable("its func_name is no name")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Unusable(f"its tests cannot be read ({type(error).__name__})") from error
    tests = {
        "kind": "function" if entry else "stdin",
        "entry": f"Solution.{entry}" if entry else "",
        "public": public,
        "hidden": public + private,
        "prelude": _PRELUDE,
        "compare": {"mode": "livecodebench"},
        "time_limit_s": _TIME_LIMIT_S,
        **_LIMITS,
    }
    return {"prompt": prompt, "answer": "", "kind": "code", "tests": tests}


def _prompt(row: Mapping[str, Any], is_function: bool) -> str:
    """Return what the policy is asked: the problem, and in which form to solve it."""
    form = _PROGRAM
    if is_function:
        starter = row["starter_code"].rstrip()
        form = f"Complete this class.\n```python\n{starter}\n```\n"
    return f"{row['question_content'].strip()}\n\n{form}{_WHOLE}"


def _test(test: Mapping[str, str], is_function: bool) -> dict[str, Any]:
    """Return a test in the form of `CodeTests`.

    A function's arguments are one JSON value per line.
    """
    input_text = test["input"]
    expected = test["output"]
    if is_function:
        return {
            "args": [read_json(line) for line in input_text.split("\n")],
            "expected": read_json(expected),
        }
    # What is no text cannot be added to one: TypeError.
    return {"input": input_text + "", "output": expected + ""}


def _unpack(packed: str, max_bytes: int) -> str:
    """Return the text in base64(zlib(pickle(text))).

    Nothing is unpickled, which would run what a stranger wrote: the text is read off
    its opcode.
    """
    stream = zlib.decompressobj()
    try:
        compressed = base64.b64decode(packed, validate=True)
        data = stream.decompress(compressed, max_bytes)
    except (ValueError, zlib.error) as error:
        raise Unusable("its private tests are no zlib data in base64") from error
    if not stream.eof:
        raise Unusable(
            f"its private tests are cut short or larger than {max_bytes} bytes"
        )
    texts = []
    for opcode, value, _ in pickletools.genops(data):
        if "UNICODE" in opcode.name:
            texts.append(str(value))
        elif opcode.name not in _OF_ONE_TEXT:
            raise Unusable(
                f"its private tests are a pickle with {opcode.name}, not of one text"
            )
    return "".join(texts)
