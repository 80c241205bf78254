"""Whether a text holds a whole program for a task, and not a part of one.

`holds_program` runs in a worker process: it parses.
"""

import ast
import builtins
import html
import re
import textwrap
import warnings
from collections.abc import Iterator
from itertools import pairwise

_FENCED = re.compile(
    r"(?ms)^[^\S\n]*(?:```|~~~)[^\n]*\n(.*?)(?:^[^\S\n]*(?:```|~~~)|\Z)"
)
_INLINE = re.compile(r"`([^`\n]{10,2000})`")
_TAG = re.compile(
    r"(?i)</?(?:pre|code|br|p|div|span|td|tr|table|tbody|b|i)(?:\s[^<>]{0,99})?/?>"
)
"""`<pre>`, `<code class="python">`; a comparison, `i <n`, is none."""
_CODE_WORD = re.compile(
    r"\b(?:def|lambda|print|import|input|read|write|stdin|stdout)\b"
)
_BEGINNING = re.compile(r"(?:async\s+)?def\s|class\s|import\s|from\s|for\s|while\s|@")
_STATEMENT = re.compile(
    r"""
      (?:async\s+)?def\s | class\s | import\s | from\s | for\s | while\s | if\s | elif\s
    | else | try | except | finally | with\s | return | yield | raise | print\(
    | [A-Za-z_][\w.]* \s? (?: \[ [^\n]{0,200}? \] \s? )?
      (?: , [\w.,\s\[\]]{0,200}? )? (?: [-+*/|&%^<>]{0,2}=[^=] | \( | : )
    """,
    re.VERBOSE,
)
"""What a line of a program outside all blocks begins with."""
_PREFIXES = tuple(
    re.compile(prefix, re.MULTILINE)
    for prefix in (
        r"^[^\S\n]?(?:>|&gt;)[ ]?",
        r"^[^\S\n]{0,4}(?:>>>|\.\.\.|In ?\[\d{0,4}\]:)(?:[ ]|$)",
        r"^[^\S\n]{0,4}\d{1,4}[.:)|]?[^\S\n]?\|?(?:[ ]|$)",
        r"^[^\S\n]{0,4}[|\u2502][ ]?",
        r"^\+(?!\+\+)",
        r"^[^\S\n]{0,4}[-*\u2022][ ]",
    )
)
"""What a line may begin with that is no part of it: `> `, `>>> `, `12: `, `| `, `+`."""
_REMOVED_LINE = re.compile(r"(?m)^(?:-|@@|\+\+\+|---|diff |index )[^\n]*\n?")
"""What a patch takes away."""
_RENAMING = re.compile(
    r"""
    (?i: \b
    (?: renam(?:e|ed|ing) | call\s(?:it|this) | name\s(?:it|this) | called | named )
    (?! \s (?: from | in | inside | within | on | for | once )\b ) )
    """,
    re.VERBOSE,
)
"""What says that a function is to have another name: `Rename it to`, `call it`."""
RENAMING_CHARS = 40
"""How far behind that the other name stands."""
MIN_ALIKE = 4
"""Letters of a name that others have by no chance."""
_USUAL_NAMES = (
    "solve solution sol f fn func function my_function answer main run ans foo fixed "
    "corrected implementation program result"
)
_ANY_NAMES = frozenset(_USUAL_NAMES.split())
"""What a function is called that is given for another."""
MIN_STATEMENTS = 3
"""Statements of a function under such a name, from which it is the whole."""
MAX_BLOCKS = 50
"""Blocks that are parsed. Who writes more hides one among them."""
MAX_BLOCK_CHARS, MAX_BLOCK_LINES = 20_000, 150
"""Of a block without a fence: many may begin within each other."""
_READS = {"input", "stdin", "open", "read", "readline", "readlines", "fileinput"}
_WRITES = {"print", "stdout", "write", "writelines"}


def may_hold_program(text: str) -> bool:
    """Return whether a text is worth parsing: it has a word that every program has."""
    return _CODE_WORD.search(text) is not None


def holds_program(text: str, entry: str, said: str = "") -> bool:
    """Return whether a text holds a program that does the task.

    Args:
        text: What may hold one.
        entry: What the tests call, "name" or "Solution.name"; empty: the program reads
            and prints.
        said: Programs in this were there before, and are given away by nobody.
    """
    name = entry.rpartition(".")[2]
    blocks = list(dict.fromkeys(filter(may_hold_program, _blocks(text))))
    if name:
        named = [block for block in blocks if name in block]
        if len(named) > MAX_BLOCKS:
            return True
        other = [block for block in blocks if name not in block]
        blocks = named + other[-MAX_BLOCKS:]
    elif len(blocks) > MAX_BLOCKS:
        return True
    programs = _programs(blocks, text, name)
    if not programs:
        return False
    told = list(dict.fromkeys(filter(may_hold_program, _blocks(said))))
    known = {ast.dump(tree) for tree in _programs(told[-2 * MAX_BLOCKS :], said, name)}
    return any(ast.dump(tree) not in known for tree in programs)


def _programs(blocks: list[str], text: str, name: str) -> list[ast.Module]:
    """Return the whole programs among blocks of a text."""
    trees = [tree for tree in map(_parsed, blocks) if tree is not None]
    return [tree for tree in trees if _does_all(tree, name, text)]


def _blocks(text: str) -> Iterator[str]:
    """Yield what may be a program in a text, in each way to read its lines."""
    if "<" in text or "&" in text:
        bare = html.unescape(_TAG.sub("\n", text))
        if bare != text:
            yield from _blocks_of(bare)
    yield from _blocks_of(text)
    for prefix in _PREFIXES:
        if len(prefix.findall(text)) > 1:
            yield from _blocks_of(prefix.sub("", text))
    if re.search(r"(?m)^\+", text):
        patched = _REMOVED_LINE.sub("", text)
        yield from _blocks_of(re.sub(r"(?m)^[+ ]", "", patched))


def _blocks_of(text: str) -> Iterator[str]:
    """Yield fenced blocks, also joined, code in sentences, and code without a mark."""
    fenced = _FENCED.findall(text)
    yield from fenced
    if len(fenced) > 1:
        yield "".join(fenced)
        yield from map("".join, list(pairwise(fenced))[:MAX_BLOCKS])
    yield from _INLINE.findall(text)
    yield from _unmarked(text)


def _unmarked(text: str) -> Iterator[str]:
    """Yield what may be code in a text without fences.

    That is the text as a whole, and each block that begins like code.
    """
    yield text[:MAX_BLOCK_CHARS]
    lines = text.splitlines()
    end = 0
    for number, line in enumerate(lines):
        margin = len(line) - len(line.lstrip())
        if not _BEGINNING.match(line, margin):
            continue
        is_inner = number < end and margin
        if is_inner:
            continue
        end = number + 1
        last = min(len(lines), number + MAX_BLOCK_LINES)
        while end < last and _goes_on(lines[end], margin):
            end += 1
        yield "\n".join(lines[number:end])


def _goes_on(line: str, margin: int) -> bool:
    """Return whether a line may belong to the code above, which begins at a margin."""
    if not line.strip() or line[0] in ")]}#@":
        return True
    if len(line) - len(line.lstrip()) > margin:
        return True
    return _STATEMENT.match(line, margin) is not None


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(textwrap.dedent(code))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _does_all(tree: ast.Module, wanted: str, text: str) -> bool:
    """Return whether a program does the whole task, or a part of it.

    Args:
        tree: The program.
        wanted: The name that the tests call; empty: it reads and prints.
        text: What the program stands in, which may say that it is to be renamed.
    """
    if not wanted:
        names = {_name(node) for node in ast.walk(tree)}
        return bool(names & _READS and names & _WRITES) and not _lacks_names(tree)
    if any(_defines(node, wanted) for node in ast.walk(tree)):
        return True
    functions = [node for node in tree.body if isinstance(node, _FUNCTIONS)]
    return any(_stands_for(node, wanted, text) for node in functions)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _defines(node: ast.AST, wanted: str) -> bool:
    """Return whether a node gives a name a function that does something, or a value."""
    if isinstance(node, _FUNCTIONS):
        return node.name == wanted and not _is_left_open(node)
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
        targets = [node.target]
    if not targets or _is_constant(getattr(node, "value", None)):
        return False
    return any(_name(target) == wanted for target in targets)


def _stands_for(
    node: ast.FunctionDef | ast.AsyncFunctionDef, wanted: str, text: str
) -> bool:
    """Return whether a function of another name is the one that is wanted."""
    name, bare = node.name.casefold(), _bare(wanted)
    is_alike = len(bare) >= MIN_ALIKE and bare in _bare(name)
    is_any = name in _ANY_NAMES or _is_to_be_named(wanted, text)
    if not (is_alike or is_any) or _is_left_open(node):
        return False
    num_statements = sum(isinstance(inner, ast.stmt) for inner in ast.walk(node)) - 1
    is_whole = num_statements >= MIN_STATEMENTS or _returns_more(node)
    return is_whole and _returns(node) and _uses_parameters(node)


def _is_to_be_named(wanted: str, text: str) -> bool:
    """Return whether a text says that a function is to be called by the wanted name."""
    return any(
        wanted in text[found.end() : found.end() + RENAMING_CHARS]
        for found in _RENAMING.finditer(text)
    )


def _bare(name: str) -> str:
    return name.casefold().replace("_", "")


def _returns_more(node: ast.AST) -> bool:
    """Return whether a function returns something that goes through its argument."""
    loops = (ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)
    return any(isinstance(inner, loops) for inner in ast.walk(node))


def _lacks_names(tree: ast.Module) -> bool:
    """Return whether a program uses a name that it defines nowhere: it is a part."""
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


def _is_left_open(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is not written yet.

    It does nothing; or it has an ellipsis, and what stands around that is no whole.
    """
    body = _without_gaps(node.body)
    if not any(map(_has_effect, body)):
        return True
    if not any(map(_is_ellipsis, ast.walk(node))):
        return False
    rest = ast.Module(body=body, type_ignores=[])
    if any(map(_is_ellipsis, ast.walk(rest))):
        return True  # it is part of what is returned or computed
    works = (ast.For, ast.While, ast.If, ast.comprehension, ast.Lambda, ast.IfExp)
    is_work = any(isinstance(inner, works) for inner in ast.walk(rest))
    is_first = _is_gap(node.body[0]) and len(body) > 1
    used = {inner.id for inner in ast.walk(rest) if isinstance(inner, ast.Name)}
    names = {argument.arg for argument in node.args.args} - {"self"}
    return not ((is_work or is_first) and names <= used and _returns(rest))


def _without_gaps(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return statements without those that do nothing, and blocks without any other."""
    return [node for node in body if not _is_gap(node) and not _is_empty(node)]


def _is_empty(node: ast.stmt) -> bool:
    """Return whether a statement is a block in which nothing is done."""
    if isinstance(node, ast.ClassDef):
        return False
    inner: list[ast.stmt] | None = getattr(node, "body", None)
    return inner is not None and not _without_gaps(inner)


def _has_effect(node: ast.stmt) -> bool:
    """Return whether a statement gives something back, or changes what is not local."""
    if _returns(node):
        return True
    for inner in ast.walk(node):
        if isinstance(inner, ast.Expr | ast.Global | ast.Nonlocal | ast.Delete):
            return True
        if isinstance(inner, ast.Attribute | ast.Subscript):
            is_changed = isinstance(inner.ctx, ast.Store)
            if is_changed:
                return True
    return False


def _returns(node: ast.AST) -> bool:
    """Return whether a node gives something back, or prints."""
    gives = (ast.Return, ast.Yield, ast.YieldFrom)
    for inner in ast.walk(node):
        if isinstance(inner, gives) and inner.value is not None:
            return True
        if isinstance(inner, ast.Name) and inner.id == "print":
            return True
    return False


def _uses_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    used = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    names = {argument.arg for argument in node.args.args} - {"self"}
    return names <= used


def _is_ellipsis(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _is_constant(node: ast.AST | None) -> bool:
    return (
        node is None
        or _is_ellipsis(node)
        or (isinstance(node, ast.Constant) and node.value is None)
    )


def _is_gap(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return "NotImplemented" in ast.dump(node)
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant or isinstance(node, ast.Pass)
