"""Whether a text holds a whole program for a task, and not a part of one. Runs in a worker process: it parses."""

import ast
import re
import textwrap
import warnings

_FENCED = re.compile(
    r"(?ms)^[^\S\n]*(?:```|~~~)[^\n]*\n(.*?)(?:^[^\S\n]*(?:```|~~~)|\Z)"
)
_READS = {"input", "stdin", "open"}
_WRITES = {"print", "stdout"}


def holds_program(text: str, entry: str) -> bool:
    """Return whether a text holds a program that does the task.

    Args:
        entry: What the tests call, "name" or "Solution.name"; empty: the program reads and prints.
    """
    return any(
        _does_all(block, entry) for block in [*_FENCED.findall(text), *_bare(text)]
    )


def _bare(text: str) -> list[str]:
    """Return what may be code in a text without fences: it as a whole, and each block that begins like code."""
    blocks = [text]
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"(?:async )?def |class |import |from |for |while ", line):
            end = number + 1
            while end < len(lines) and _goes_on(lines[end]):
                end += 1
            blocks.append("\n".join(lines[number:end]))
            if len(blocks) > 50:
                break
    return blocks


def _goes_on(line: str) -> bool:
    """Return whether a line may belong to the code above it."""
    return (
        not line.strip()
        or line[0] in " \t)]}#@"
        or bool(
            re.match(r"[A-Za-z_][\w.\[\], ]*\s*(?:[-+*/|&%]?=[^=]|\()", line)
            or re.match(
                r"(?:async )?def |class |import |from |for |while |if |elif |else|try|except|return",
                line,
            )
        )
    )


def _does_all(code: str, entry: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(textwrap.dedent(code))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    if not entry:
        names = {_name(node) for node in ast.walk(tree)}
        return bool(names & _READS and names & _WRITES)
    wanted = entry.rpartition(".")[2]
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name == wanted
        and not _is_left_open(node.body)
        for node in ast.walk(tree)
    )


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _is_left_open(body: list[ast.stmt]) -> bool:
    """Return whether a function does nothing yet, at some place: `pass`, `...`, NotImplementedError."""
    is_said = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    if is_said and len(body) == 1:
        return True
    return any(map(_is_gap, ast.walk(ast.Module(body, []))))


def _is_gap(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return "NotImplemented" in ast.dump(node)
    is_dots = isinstance(node, ast.Constant) and node.value is ...
    return is_dots or isinstance(node, ast.Pass)
