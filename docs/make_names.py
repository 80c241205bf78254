"""Write docs/names.md: what `aipo_env` offers, room by room.

python docs/make_names.py
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGE = "aipo_env"
HEAD = """\
# The names of aipo_env

What `from aipo_env import …` gives, by the room that it is written in; rooms and files
may move, these names stay. `python docs/make_names.py` writes this page from the
docstrings.
"""


def imported_names(door: ast.Module) -> dict[str, str]:
    """Return the module of each name that the door imports from the package."""
    modules = {}
    for node in door.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            for alias in node.names:
                modules[alias.asname or alias.name] = str(node.module)
    return modules


def docstrings(module: str) -> Iterator[tuple[str, str]]:
    """Yield the names that a module defines, each with its docstring.

    That of a constant or a type is the text below it.
    """
    namespace = importlib.import_module(module)
    body = ast.parse(inspect.getsource(namespace)).body
    for node, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            # As it is at last: a class may put its docstring together.
            yield node.name, inspect.getdoc(getattr(namespace, node.name)) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            is_text = isinstance(following, ast.Expr)
            text = ast.literal_eval(following.value) if is_text else ""
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        yield part.id, text


def first_sentence(docstring: str) -> str:
    """Return the first paragraph of a docstring, in one line."""
    paragraph = inspect.cleandoc(docstring).split("\n\n")[0]
    # A table of Markdown ends a cell at a bar.
    return " ".join(paragraph.split()).replace("|", "\\|")


def room_of(module: str) -> str:
    """Return the room that a module lies in, as a path; of the outermost, its file."""
    _, *rooms, file = module.split(".")
    return "/".join(rooms) + "/" if rooms else f"{file}.py"


def names_page() -> str:
    """Return the page.

    Raises:
        ValueError: A public name has no docstring.
    """
    door = importlib.import_module(PACKAGE)
    modules = imported_names(ast.parse(inspect.getsource(door)))
    rooms: dict[str, list[str]] = {}
    for module in sorted(set(modules.values())):
        documented = dict(docstrings(module))
        rows = rooms.setdefault(room_of(module), [])
        for name in sorted(name for name in modules if modules[name] == module):
            text = first_sentence(documented.get(name, ""))
            if not text:
                raise ValueError(f"{module}.{name} has no docstring: write one.")
            rows.append(f"| `{name}` | {text} |")
    parts = [HEAD]
    for room, rows in sorted(rooms.items()):
        table = "\n".join(["| name | |", "|---|---|", *sorted(rows)])
        parts.append(f"## {room}\n\n{table}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    (DOCS / "names.md").write_text(names_page(), encoding="utf-8")
