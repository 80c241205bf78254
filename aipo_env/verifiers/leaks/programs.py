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
    r"""
    ^ [^\S\n]* (?: ``` | ~~~ ) [^\n]* \n     # ```python
    (.*?)
    (?: ^ [^\S\n]* (?: ``` | ~~~ ) | \Z )    # ```; one that never ends reaches the end
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"`([^`\n]{10,2000})`")
"""Code in a sentence."""
_TAG = re.compile(
    r"""
    </?
    (?: pre | code | br | p | div | span | td | tr | table | tbody | b | i )
    (?: \s [^<>]{0,99} )?
    /?>
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""`<pre>`, `<code class="python">`; a comparison, `i <n`, is none."""
_CODE_WORD = re.compile(
    r"\b(?:def|lambda|print|import|input|read|write|stdin|stdout)\b"
)
_BEGINNING = re.compile(r"(?:async\s+)?def\s|class\s|import\s|from\s|for\s|while\s|@")
"""What a program outside all blocks begins with."""
_STATEMENT = re.compile(
    r"""
      (?:async\s+)?def\s | class\s | import\s | from\s | for\s | while\s | if\s | elif\s
    | else | try | except | finally | with\s | return | yield | raise | print\(
    | [A-Za-z_][\w.]* \s?                   # total
      (?: \[ [^\n]{0,200}? \] \s? )?        # [i]
      (?: , [\w.,\s\[\]]{0,200}? )?         # , rest
      (?: [-+*/|&%^<>]{0,2}=[^=] | \( | : )   # +=, a call's bracket, an annotation
    """,
    re.VERBOSE,
)
"""What a line of a program outside all blocks begins with."""
_PREFIXES = (
    # "> " of a quotation
    re.compile(r"^[^\S\n]?(?:>|&gt;)[ ]?", re.MULTILINE),
    # ">>> ", "... ", "In [1]:" of a console
    re.compile(r"^[^\S\n]{0,4}(?:>>>|\.\.\.|In ?\[\d{0,4}\]:)(?:[ ]|$)", re.MULTILINE),
    # "12: ", "3 | ": numbers of lines
    re.compile(r"^[^\S\n]{0,4}\d{1,4}[.:)|]?[^\S\n]?\|?(?:[ ]|$)", re.MULTILINE),
    # "| " of a frame
    re.compile(r"^[^\S\n]{0,4}[|\u2502][ ]?", re.MULTILINE),
    # "+" of a patch, and not "+++" of its head
    re.compile(r"^\+(?!\+\+)", re.MULTILINE),
    # "- " of a list
    re.compile(r"^[^\S\n]{0,4}[-*\u2022][ ]", re.MULTILINE),
)
"""What a line may begin with that is no part of it."""
_REMOVED_LINE = re.compile(r"(?m)^(?:-|@@|\+\+\+|---|diff |index )[^\n]*\n?")
"""What a patch takes away, and its heads."""
_ADDED_LINE = re.compile(r"(?m)^\+")
_PATCH_MARGIN = re.compile(r"(?m)^[+ ]")
"""The first sign of each line that a patch adds or leaves as it is."""
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
MAX_BLOCK_CHARS = 20_000
"""Of a text without a fence, which is parsed as a whole."""
MAX_BLOCK_LINES = 150
"""Of a block without a fence: many may begin within each other."""
_READS = {"input", "stdin", "open", "read", "readline", "readlines", "fileinput"}
_WRITES = {"print", "stdout", "write", "writelines"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LOOPS_INSIDE = (ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)
"""Expressions that go through an argument in one statement."""
_WORK = (
    ast.For,
    ast.While,
    ast.If,
    ast.comprehension,
    ast.Lambda,
    ast.IfExp,
)
"""Nodes in which something is computed, and not only passed on."""
_EFFECTS = (ast.Expr, ast.Global, ast.Nonlocal, ast.Delete)
"""Statements that may change what is not local: a call, `global`, `del`."""


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
    blocks = _likely_blocks(text)
    if name:
        # A block with the name is the likeliest. Of others, which may be a function to
        # be renamed, the last ones are read.
        with_name = [block for block in blocks if name in block]
        without_name = [block for block in blocks if name not in block]
        num_likely = len(with_name)
        blocks = with_name + without_name[-MAX_BLOCKS:]
    else:
        num_likely = len(blocks)
    if num_likely > MAX_BLOCKS:
        return True
    programs = _programs(blocks, text, name)
    if not programs:
        return False
    said_blocks = _likely_blocks(said)[-2 * MAX_BLOCKS :]
    # Dumps leave out lines and columns: the same program laid out anew is the same.
    said_programs = set(map(ast.dump, _programs(said_blocks, said, name)))
    return any(ast.dump(tree) not in said_programs for tree in programs)


def _likely_blocks(text: str) -> list[str]:
    """Return the blocks of a text that are worth parsing, each once."""
    return list(dict.fromkeys(filter(may_hold_program, _blocks(text))))


def _programs(blocks: list[str], text: str, name: str) -> list[ast.Module]:
    """Return the whole programs among blocks of a text."""
    programs: list[ast.Module] = []
    for block in blocks:
        tree = _parsed(block)
        if tree is not None and _does_all(tree, name, text):
            programs.append(tree)
    return programs


# What may be a program in a text


def _blocks(text: str) -> Iterator[str]:
    """Yield what may be a program in a text, in each way to read its lines."""
    if "<" in text or "&" in text:
        bare = html.unescape(_TAG.sub("\n", text))
        if bare != text:
            yield from _blocks_of(bare)
    yield from _blocks_of(text)
    for prefix in _PREFIXES:
        # One line alone that begins so has it as its own: a comparison, a decorator.
        if len(prefix.findall(text)) > 1:
            yield from _blocks_of(prefix.sub("", text))
    if _ADDED_LINE.search(text):
        patched = _REMOVED_LINE.sub("", text)
        yield from _blocks_of(_PATCH_MARGIN.sub("", patched))


def _blocks_of(text: str) -> Iterator[str]:
    """Yield fenced blocks, also joined, code in sentences, and code without a mark."""
    fenced = _FENCED.findall(text)
    yield from fenced
    if len(fenced) > 1:
        # A program may be given in parts: all of them, or two that stand together.
        yield "".join(fenced)
        neighbours = list(pairwise(fenced))
        yield from map("".join, neighbours[:MAX_BLOCKS])
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
        margin = _margin(line)
        if not _BEGINNING.match(line, margin):
            continue
        # What is indented within the block before is a part of that.
        is_inner = number < end and margin
        if is_inner:
            continue
        end = number + 1
        last = min(len(lines), number + MAX_BLOCK_LINES)
        while end < last and _goes_on(lines[end], margin):
            end += 1
        yield "\n".join(lines[number:end])


def _margin(line: str) -> int:
    """Return how many blanks a line begins with."""
    return len(line) - len(line.lstrip())


def _goes_on(line: str, margin: int) -> bool:
    """Return whether a line may belong to the code above, which begins at a margin."""
    if not line.strip() or line[0] in ")]}#@":
        return True
    if _margin(line) > margin:
        return True
    return _STATEMENT.match(line, margin) is not None


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            # Python warns of what a model may well write, such as "\d" in a text.
            warnings.simplefilter("ignore")
            return ast.parse(textwrap.dedent(code))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


# Whether it is whole


def _does_all(tree: ast.Module, name: str, text: str) -> bool:
    """Return whether a program does the whole task, and not a part of it.

    Args:
        tree: The program.
        name: What the tests call; empty: the program reads and prints.
        text: What the program stands in, which may say that it is to be renamed.
    """
    if not name:
        names = {_name(node) for node in ast.walk(tree)}
        reads_and_prints = bool(names & _READS) and bool(names & _WRITES)
        return reads_and_prints and not _lacks_names(tree)
    if any(_defines(node, name) for node in ast.walk(tree)):
        return True
    functions = [node for node in tree.body if isinstance(node, _FUNCTIONS)]
    return any(_stands_for(function, name, text) for function in functions)


def _defines(node: ast.AST, name: str) -> bool:
    """Return whether a node gives a name a function that does something, or a value."""
    if isinstance(node, _FUNCTIONS):
        return node.name == name and not _is_left_open(node)
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
        targets = [node.target]
    if not targets or _is_constant(getattr(node, "value", None)):
        return False
    return any(_name(target) == name for target in targets)


def _stands_for(function: _Function, name: str, text: str) -> bool:
    """Return whether a function of another name is the one that the tests call."""
    own_name = function.name.casefold()
    bare = _bare(name)
    is_alike = len(bare) >= MIN_ALIKE and bare in _bare(own_name)
    is_any = own_name in _ANY_NAMES or _is_to_be_named(name, text)
    if not (is_alike or is_any) or _is_left_open(function):
        return False
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    num_inner = len(statements) - 1  # the function is a statement itself
    is_whole = num_inner >= MIN_STATEMENTS or _goes_through(function)
    return is_whole and _returns(function) and _uses_parameters(function, function)


def _is_to_be_named(name: str, text: str) -> bool:
    """Return whether a text says that a function is to be called by a name."""
    for renaming in _RENAMING.finditer(text):
        behind = text[renaming.end() : renaming.end() + RENAMING_CHARS]
        if name in behind:
            return True
    return False


def _bare(name: str) -> str:
    return name.casefold().replace("_", "")


def _goes_through(node: ast.AST) -> bool:
    """Return whether a function goes through something in one expression."""
    return any(isinstance(inner, _LOOPS_INSIDE) for inner in ast.walk(node))


def _lacks_names(tree: ast.Module) -> bool:
    """Return whether a program uses a name that it defines nowhere: it is a part."""
    used: set[str] = set()
    defined = set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.alias) and node.name == "*":
            return False  # from there it may have any name
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add(node.id)
        else:
            defined.add(_defined_name(node))
    return not used <= defined


def _defined_name(node: ast.AST) -> str:
    """Return the name that a node defines; empty where it defines none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, ast.alias):
        # "import os.path" defines "os".
        name = node.asname or node.name
        return name.partition(".")[0]
    if isinstance(node, ast.ExceptHandler):
        return node.name or ""
    return ""


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    return ""


# Whether it is written at all


def _is_left_open(function: _Function) -> bool:
    """Return whether a function is not written yet.

    It does nothing; or it has an ellipsis, and what stands around that is no whole.
    """
    body = _without_gaps(function.body)
    if not any(map(_has_effect, body)):
        return True
    if not any(map(_is_ellipsis, ast.walk(function))):
        return False
    rest = ast.Module(body=body, type_ignores=[])
    if any(map(_is_ellipsis, ast.walk(rest))):
        return True  # it is part of what is returned or computed
    # An ellipsis before a whole body stands for a docstring, and one beside real work
    # for what can be left out.
    does_work = any(isinstance(node, _WORK) for node in ast.walk(rest))
    is_first = _is_gap(function.body[0]) and len(body) > 1
    if not does_work and not is_first:
        return True
    return not (_uses_parameters(function, rest) and _returns(rest))


def _without_gaps(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return statements without those that do nothing, and blocks without any other."""
    return [node for node in body if not (_is_gap(node) or _is_empty(node))]


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
        if isinstance(inner, _EFFECTS):
            return True
        if isinstance(inner, ast.Attribute | ast.Subscript):
            is_changed = isinstance(inner.ctx, ast.Store)
            if is_changed:
                return True
    return False


def _returns(node: ast.AST) -> bool:
    """Return whether a node gives something back, or prints."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Return | ast.Yield | ast.YieldFrom):
            if inner.value is not None:
                return True
        elif isinstance(inner, ast.Name) and inner.id == "print":
            return True
    return False


def _uses_parameters(function: _Function, body: ast.AST) -> bool:
    """Return whether a function's parameters all stand in a body."""
    used = {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}
    parameters = {argument.arg for argument in function.args.args}
    parameters.discard("self")
    return parameters <= used


def _is_ellipsis(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _is_constant(node: ast.AST | None) -> bool:
    """Return whether a value is none: missing, None, or an ellipsis."""
    if node is None or _is_ellipsis(node):
        return True
    return isinstance(node, ast.Constant) and node.value is None


def _is_gap(node: ast.stmt) -> bool:
    """Return whether a statement holds the place of one that is not written."""
    if isinstance(node, ast.Raise):
        return "NotImplemented" in ast.dump(node)
    if isinstance(node, ast.Pass):
        return True
    # Docstrings and ellipses.
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
