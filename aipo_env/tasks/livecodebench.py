"""LiveCodeBench's coding problems: their prompts, and their tests out of what they are
packed in.
"""

import base64
import pickletools
import zlib
from collections.abc import Mapping
from typing import Any

from aipo_env.tasks.rows import Unusable, read_json

MAX_TEST_BYTES = 512 * 2**20
"""Private tests are unpacked up to this size."""
# What pickling a text writes beside the text itself.
_OF_ONE_TEXT = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}
_MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools"
    " functools "
)
_MODULES += "operator io sys json"
# In one line, so that line numbers stay nearly right.
_PRELUDE = (
    "".join(
        f"from {name} import *; " for name in (*_MODULES.split(), "builtins", "typing")
    )
    + f"import {', '.join(_MODULES.split())}; sys.setrecursionlimit(50000)\n"
)
"""What the benchmark puts before every program; starter code relies on it."""
_PROGRAM = (
    "Write a Python program that reads standard input and prints to standard output. "
)
_WHOLE = "Give it whole in one ```python block."


def read_problem(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task fields of a row of `code_generation_lite`.

    All tests decide, the public ones too, as in the benchmark's own count.

    Raises:
        Unusable: A column is missing or of another shape, or the private tests are
            none.
    """
    try:
        entry = read_json(row["metadata"]).get("func_name") or ""
        public, private = row["public_test_cases"], row["private_test_cases"]
        if not private.lstrip().startswith("["):
            private = _unpack(private)
        shown, kept = (
            [_test(test, bool(entry)) for test in read_json(text)]
            for text in (public, private)
        )
        how = (
            f"Complete this class.\n```python\n{row['starter_code'].rstrip()}\n```\n"
            if entry
            else _PROGRAM
        )
        prompt = f"{row['question_content'].strip()}\n\n{how}{_WHOLE}"
        if entry and not entry.isidentifier():
            raise Unusable("its func_name is no name")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Unusable(f"its tests cannot be read ({type(error).__name__})") from error
    tests = {
        "kind": "function" if entry else "stdin",
        "entry": f"Solution.{entry}" if entry else "",
        "public": shown,
        "hidden": shown + kept,
        "prelude": _PRELUDE,
        "time_limit_s": 6.0,
        "memory_mb": 1024,
    }
    return {"prompt": prompt, "answer": "", "kind": "code", "tests": tests}


def _test(test: Mapping[str, str], is_function: bool) -> dict[str, Any]:
    """Return a test in the form of `CodeTests`; a function's arguments are one JSON
    value per line.
    """
    given, expected = test["input"], test["output"]
    if is_function:
        return {
            "args": [read_json(line) for line in given.split("\n")],
            "expected": read_json(expected),
        }
    return {"input": given + "", "output": expected + ""}


def _unpack(packed: str) -> str:
    """Return the text in base64(zlib(pickle(text))). Nothing is unpickled: the text is
    found by its opcode.
    """
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(
            base64.b64decode(packed, validate=True), MAX_TEST_BYTES
        )
    except (ValueError, zlib.error) as error:
        raise Unusable("its private tests are no zlib data in base64") from error
    if not stream.eof:
        raise Unusable(
            f"its private tests are cut short or larger than {MAX_TEST_BYTES} bytes"
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
