"""Whether a text holds a whole program for a task, and not a part of one. Runs in a worker process: it parses."""

import ast
import builtins
import re
import textwrap
import warnings

_FENCED = re.compile(
    r"(?ms)^[^\S\n]*(?:```|~~~)[^\n]*\n(.*?)(?:^[^\S\n]*(?:```|~~~)|\Z)"
)
_INLINE = re.compile(r"`([^`\n]{10,2000})`")
MAX_BLOCKS = 50
_READS = {"input", "stdin", "open"}
_WRITES = {"print", "stdout"}


def holds_program(text: str, entry: str, said: str = "") -> bool:
    """Return whether a text holds a program that does the task.

    Args:
        entry: What the tests call, "name" or "Solution.name"; empty: the program reads and prints.
        said: Programs in this were there before, and are given away by nobody.
    """
    known = {ast.dump(tree) for tree in _programs(said, entry)}
    return any(ast.dump(tree) not in known for tree in _programs(text, entry))


def _programs(text: str, entry: str) -> list[ast.Module]:
    """Return the whole programs in a text."""
    blocks = [*_FENCED.findall(text), *_INLINE.findall(text), *_bare(text)]
    trees = map(_parsed, dict.fromkeys(blocks[:MAX_BLOCKS]))
    return [tree for tree in trees if tree is not None and _does_all(tree, entry)]


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
            if len(blocks) > MAX_BLOCKS:
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


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(textwrap.dedent(code))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _does_all(tree: ast.Module, entry: str) -> bool:
    """Return whether a program does the whole task, or a part of it."""
    if not entry:
        names = {_name(node) for node in ast.walk(tree)}
        return bool(names & _READS and names & _WRITES) and not _lacks_names(tree)
    return _defines(tree, entry.rpartition(".")[2])


def _defines(tree: ast.Module, wanted: str) -> bool:
    """Return whether a program defines a name, by a function that does something or by an assignment."""
    for node in ast.walk(tree):
        if _is_function(node, wanted):
            return True
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(_name(target) == wanted for target in targets):
            return True
    return False


def _is_function(node: ast.AST, name: str) -> bool:
    """Return whether a statement defines a function of a name, and fills it."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return node.name == name and not _is_left_open(node.body)


def _lacks_names(tree: ast.Module) -> bool:
    """Return whether a program uses a name that it defines nowhere: it is a part of one."""
    used, defined = set[str](), set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).partition(".")[0])
            if node.name == "*":
                return False
        elif isinstance(node, ast.ExceptHandler) and node.name:
            defined.add(node.name)
    return not used <= defined


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _is_left_open(body: list[ast.stmt]) -> bool:
    """Return whether a function does nothing yet: `pass`, `...`, NotImplementedError, or what it says of itself."""
    return all(map(_is_gap, body)) or any(map(_is_to_be_filled, body))


def _is_to_be_filled(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return node.value.value is ...


def _is_gap(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return "NotImplemented" in ast.dump(node)
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant or isinstance(node, ast.Pass)
