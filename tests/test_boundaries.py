"""The design rules a machine can check. Every failure names the place and says how to
correct it.
"""

import ast
import dataclasses
import importlib
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("aipo_env", "aipo_learner")

# Each layer imports only from layers above it in this list, or from beside it without a
# cycle. A name covers the module or package and everything inside it; "aipo_env" is the
# door alone.
LAYERS = (
    (
        "aipo_env.records",
        "aipo_env.budgets",
        "aipo_env.episode",
        "aipo_env.errors",
        "aipo_env.files",
        "aipo_env.text",
        "aipo_env.stored",
        "aipo_env.keys",
        "aipo_env.threads",
        "aipo_env.event_loop",
    ),
    (
        "aipo_env.codecs",
        "aipo_env.registry",
        "aipo_env.shipped",
        "aipo_env.hub_access",
        "aipo_env.verifiers.extract",
        "aipo_env.verifiers.reading",
    ),
    ("aipo_env.tasks", "aipo_env.sandboxes", "aipo_env.toy.world"),
    ("aipo_env.verifiers",),
    ("aipo_env.tokenizers",),
    ("aipo_env.agents",),
    ("aipo_env.tools",),
    ("aipo_env.rollout",),
    ("aipo_env.flags", "aipo_env.viewer"),
    ("aipo_env.gym",),
    (
        "aipo_env.checker",
        "aipo_env.grading",
        "aipo_env.terminal",
        "aipo_env.testing",
    ),
    ("aipo_env",),
    (
        "aipo_env.cli",
        "aipo_env.commands",
        "aipo_env.serving",
        "aipo_env.pytest_plugin",
    ),
    ("aipo_env.integrations",),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}

# The learner's rooms; each imports only from those above it.
ROOMS = (
    ("aipo_learner.settings",),
    ("aipo_learner.policy",),
    ("aipo_learner.run",),
    ("aipo_learner.samplers",),
    ("aipo_learner.rollout",),
    ("aipo_learner.learn",),
    ("aipo_learner.evaluation",),
    ("aipo_learner.reporting",),
    ("aipo_learner.first_words", "aipo_learner.teachers"),
    ("aipo_learner.build",),
    ("aipo_learner.training",),
    ("aipo_learner.integrations",),
    ("aipo_learner.demo", "aipo_learner.dry_run"),
    ("aipo_learner.cli",),
)
ROOM_OF = {name: number for number, names in enumerate(ROOMS) for name in names}
TORCH_FREE = "aipo_learner.settings"
"""What a run may be told is read without them."""

ROOMS_BY_FILE = ("rollout", "gym", "verifiers", "agents/pool", "serving")
"""Rooms of aipo_env of which the tree in README.md names every file."""
SAME_NAMES = {
    "T": "the type variable",
    "LOG": "each its own logger",
    "main": "what a script runs",
    "play": "the command; what plays an episode",
    "train": "the command; what it calls",
    "make_env": "one function, once for each of its overloads",
    "build_tokenizer": "of a spec; of the tiny policy",
    "AGENT_RULES": "the names that settings know; the functions of these names",
    "Groups": "where groups come from; those of a step",
    "MAX_NAME_CHARS": "each for names of another kind",
    "NUM_TRIES": "of a worker; of an engine",
}
"""Public names that two modules may define, and what each of them means."""

MODEL_LIBRARIES = ("torch", "transformers", "vllm")
TYPE_CHECKING = ("TYPE_CHECKING", "typing.TYPE_CHECKING")

MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|Users|root|work)/\w|\b[A-Z]:\\Users\b")
REGISTRY_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|anaconda\.org|download\.pytorch\.org"
)


class Module(NamedTuple):
    """One parsed file: its dotted name, where it lies below the root, and its
    source.
    """

    name: str
    path: str
    tree: ast.Module


def parse_package(package: str) -> dict[str, Module]:
    modules = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        place = path.relative_to(ROOT)
        parts = place.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source, filename=str(place))
        modules[name] = Module(name, place.as_posix(), tree)
    return modules


ENV = parse_package("aipo_env")
LEARNER = parse_package("aipo_learner")
ALL = ENV | LEARNER


def imported(node: ast.AST, importer: Module) -> list[str]:
    """Dotted names an import reaches: a sub-module where there is one, else its
    package.
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = importer.name.split(".")
        drop = node.level - importer.path.endswith("/__init__.py")
        base = ".".join([*package[: len(package) - drop], *filter(None, [base])])
    names = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in ALL else base for name in names]


def all_imports(module: Module) -> Iterator[tuple[str, int]]:
    """Every (imported name, line) of a file, those inside functions included."""
    for node in ast.walk(module.tree):
        for name in imported(node, module):
            yield name, node.lineno


def import_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the file is imported: no function bodies, nothing under
    TYPE_CHECKING.
    """
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and ast.unparse(node.test) in TYPE_CHECKING:
        children = list(node.orelse)
    for child in children:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from import_time_nodes(child)


def layer_of(name: str, layers: dict[str, int] = LAYER_OF) -> int | None:
    """The layer of a module or of the package around it; None if the list names
    neither.
    """
    while name not in layers and name.count(".") > 1:
        name = name.rpartition(".")[0]
    return layers.get(name)


def assert_none(offenders: list[str], remedy: str) -> None:
    assert not offenders, "\n".join(
        [remedy, *(f"  {offender}" for offender in offenders)]
    )


def model_libraries_loaded_by(*modules: str) -> set[str]:
    """Import modules in a process of their own; return the model libraries there."""
    imports = ", ".join(["json", "sys", *modules])
    script = f"import {imports}; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1])) & set(MODEL_LIBRARIES)


def test_every_module_of_aipo_env_stands_in_a_layer() -> None:
    offenders = [
        module.path
        for module in ENV.values()
        if layer_of(module.name) is None
        and not (module.path.endswith("/__init__.py") and not list(all_imports(module)))
    ]
    assert_none(
        offenders,
        f"Not in any layer: add the module to LAYERS in {Path(__file__).name}:",
    )


def test_aipo_env_imports_only_to_its_left() -> None:
    offenders = []
    for module in ENV.values():
        here = layer_of(module.name)
        for name, line in all_imports(module):
            there = layer_of(name)
            if here is not None and there is not None and there > here:
                offenders.append(f"{module.path}:{line} imports {name}")
    assert_none(
        offenders,
        "Imports a later layer: move what is needed to the earlier one, or pass it as"
        " an argument:",
    )


def test_every_module_of_the_learner_stands_in_a_room() -> None:
    offenders = [
        module.path
        for module in LEARNER.values()
        if layer_of(module.name, ROOM_OF) is None and module.name != "aipo_learner"
    ]
    assert_none(
        offenders, f"Not in any room: add the module to ROOMS in {Path(__file__).name}:"
    )


def test_the_learners_rooms_import_only_from_those_above() -> None:
    offenders = []
    for module in LEARNER.values():
        here = layer_of(module.name, ROOM_OF)
        for name, line in all_imports(module):
            there = layer_of(name, ROOM_OF)
            if here is not None and there is not None and there > here:
                offenders.append(f"{module.path}:{line} imports {name}")
    assert_none(
        offenders,
        "Imports a later room: move what is needed to the earlier one, or pass it as an"
        " argument:",
    )


def test_the_door_and_the_settings_load_no_model_library() -> None:
    modules = [name for name in LEARNER if name.startswith(TORCH_FREE)]
    loaded = model_libraries_loaded_by("aipo_learner", *modules)
    assert not loaded, f"{TORCH_FREE} loads {sorted(loaded)}"


@pytest.mark.parametrize("modules", [ENV, LEARNER], ids=PACKAGES)
def test_imports_make_no_cycle(modules: dict[str, Module]) -> None:
    graph = {
        module.name: (
            {name for name, _ in all_imports(module) if name in modules} - {module.name}
        )
        for module in modules.values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        pytest.fail(
            f"Import cycle: move what both need into a module of its own: {cycle}"
        )


def test_aipo_env_never_imports_the_learner() -> None:
    offenders = [
        f"{module.path}:{line} imports {name}"
        for module in ENV.values()
        for name, line in all_imports(module)
        if name.split(".")[0] == "aipo_learner"
    ]
    assert_none(
        offenders, "Find the learner's commands by the entry points `aipo.commands`:"
    )


def test_aipo_env_imports_no_model_library_at_import_time() -> None:
    offenders = [
        f"{module.path}:{node.lineno} imports {name}"
        for module in ENV.values()
        for node in import_time_nodes(module.tree)
        for name in imported(node, module)
        if name.split(".")[0] in MODEL_LIBRARIES
    ]
    assert_none(
        offenders,
        "aipo_env runs without these: import inside the function that needs it:",
    )


def test_importing_aipo_env_loads_no_model_library() -> None:
    loaded = model_libraries_loaded_by("aipo_env")
    assert not loaded, (
        f"`import aipo_env` loads {sorted(loaded)}: `python -X importtime` shows how"
    )


def test_learner_comes_in_by_the_door() -> None:
    public = importlib.import_module("aipo_env").__all__
    offenders = []
    for module in LEARNER.values():
        for node in ast.walk(module.tree):
            if not any(
                name.split(".")[0] == "aipo_env" for name in imported(node, module)
            ):
                continue
            is_door = isinstance(node, ast.ImportFrom) and node.module == "aipo_env"
            names = [alias.name for alias in node.names]
            if not is_door or not set(names) <= set(public):
                offenders.append(f"{module.path}:{node.lineno} {ast.unparse(node)}")
    assert_none(
        offenders,
        "Write `from aipo_env import Name`, with Name in `__all__` of"
        " aipo_env/__init__.py:",
    )


def door_names() -> set[str]:
    """Public names that aipo_env/__init__.py binds at top level, also under
    TYPE_CHECKING.
    """
    module = ENV["aipo_env"]
    names: set[str] = set()
    branches = [node for node in module.tree.body if isinstance(node, ast.If)]
    for node in [
        *module.tree.body,
        *(node for branch in branches for node in branch.body),
    ]:
        if isinstance(node, ast.ImportFrom) and imported(node, module)[0].startswith(
            "aipo_env"
        ):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {
                target.id for target in node.targets if isinstance(target, ast.Name)
            }
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def door_order(name: str) -> tuple[bool, bool, str]:
    """Constants, then classes, then the rest: the order that `make fix` gives."""
    return not name.isupper(), not name[0].isupper(), name


def test_door_lists_every_public_name_in_order() -> None:
    door = importlib.import_module("aipo_env")
    listed = list(door.__all__)
    assert_none(
        sorted(door_names() - set(listed)), "Public, but missing from aipo_env.__all__:"
    )
    absent = [name for name in listed if not hasattr(door, name)]
    assert_none(absent, "In aipo_env.__all__, but aipo_env has no such name:")
    in_order = sorted(set(listed), key=door_order)
    assert listed == in_order, (
        "aipo_env.__all__ is out of order or has a double: run `make fix`"
    )


def test_the_learners_door_opens_to_what_it_lists_and_is_documented() -> None:
    door = importlib.import_module("aipo_learner")
    listed = list(door.__all__)
    assert listed == sorted(set(listed), key=door_order)
    absent = [name for name in listed if getattr(door, name, None) is None]
    assert_none(absent, "In aipo_learner.__all__, but aipo_learner has no such name:")
    page = (ROOT / "docs" / "learner.md").read_text(encoding="utf-8")
    unknown = [name for name in listed if f"`{name}`" not in page]
    assert_none(unknown, "Public, but not in docs/learner.md:")
    with pytest.raises(AttributeError, match="no attribute 'aipo_los'"):
        door.aipo_los  # noqa: B018


def test_the_page_of_names_has_every_public_name_and_is_current() -> None:
    page = (ROOT / "docs" / "names.md").read_text(encoding="utf-8")
    listed = importlib.import_module("aipo_env").__all__
    absent = [name for name in listed if f"| `{name}` |" not in page]
    assert_none(absent, "Not in docs/names.md: run `python docs/make_names.py`:")
    script = runpy.run_path(str(ROOT / "docs" / "make_names.py"))
    is_current = script["names_page"]() == page
    assert is_current, "docs/names.md is old: run `python docs/make_names.py`"


def test_the_references_are_current_and_every_option_has_a_sentence() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_references.py"))
    for name, page in (("cli", "cli_page"), ("gym", "gym_page")):
        path = ROOT / "docs" / f"reference_{name}.md"
        is_current = script[page]() == path.read_text(encoding="utf-8")
        assert is_current, f"{path} is old: run `python docs/make_references.py`"


def test_an_option_without_a_sentence_is_refused() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_references.py"))
    option = script["read_option"]("--lr {None}|FLOAT\n      (default: None)")
    assert (option.name, option.text, option.default) == ("--lr FLOAT", "", "not set")
    with pytest.raises(ValueError, match="--lr FLOAT has no sentence"):
        script["table"]([option], "option")


def test_the_names_that_a_setting_may_be_stand_in_its_sentence() -> None:
    page = (ROOT / "docs" / "reference_cli.md").read_text(encoding="utf-8")
    absent = []
    settings = importlib.import_module("aipo_learner.settings.train").TrainConfig()
    parts = {"": settings, **vars(settings)}
    for part, value in parts.items():
        if not dataclasses.is_dataclass(value):
            continue
        for item in dataclasses.fields(value):
            for rule in getattr(item.type, "__metadata__", ()):
                flag = item.name.replace("_", "-")
                row = re.search(rf"^\| `--(?:{part}\.)?{flag} .*$", page, re.MULTILINE)
                names = getattr(rule, "names", ())
                if row is None and names:
                    absent.append(f"--{part}.{flag}")
                absent += [f"--{flag}: {name}" for name in names if name not in row[0]]
    assert_none(absent, "Say in the field's docstring what it may be:")


def test_the_tree_in_readme_is_whole() -> None:
    """Every module of a package, but for those in rooms that it names as a whole."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = page.split("## The tree", 1)[1].split("```")[1]
    named = set(re.findall(r"[\w.]+\.py|\w+(?=/)", tree))
    absent = []
    for module in ALL.values():
        _, *rooms, file = Path(module.path).parts
        if file == "__init__.py":
            continue
        # A room may be named alone, unless it is one whose files the tree names.
        is_env = module.path.startswith("aipo_env/")
        is_by_file = is_env and "/".join(rooms) in ROOMS_BY_FILE
        is_room_named = is_env and not is_by_file and bool(set(rooms) & named)
        if file not in named and not is_room_named:
            absent.append(module.path)
    for room in ("hf", "vllm", "evaluation", "reporting"):
        absent = [path for path in absent if f"/{room}/" not in path]
    assert_none(absent, "In no line of the tree in README.md:")


def top_level_names(module: Module) -> Iterator[str]:
    """Yield the public names that a module defines; what it imports is another's."""
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for target in targets for part in ast.walk(target)]
            names = [part.id for part in parts if isinstance(part, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def test_no_public_name_means_two_things() -> None:
    # Lists: a name that one module binds twice is caught as well.
    places: dict[str, list[str]] = {}
    for module in ALL.values():
        for name in top_level_names(module):
            places.setdefault(name, []).append(module.path)
    offenders = [
        f"{name}: {', '.join(paths)}"
        for name, paths in sorted(places.items())
        if len(paths) > 1 and name not in SAME_NAMES
    ]
    assert_none(
        offenders, "Rename one of them, or make it private; see also SAME_NAMES:"
    )


def test_every_room_says_what_it_is_for() -> None:
    offenders = [
        module.path
        for module in ALL.values()
        if module.path.endswith("/__init__.py") and not ast.get_docstring(module.tree)
    ]
    assert_none(offenders, "Write what the room is for, in one sentence:")


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def unannotated(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [
        argument.arg
        for argument in [*named, *starred]
        if argument.annotation is None and argument.arg not in ("self", "cls")
    ]


def test_every_argument_is_annotated() -> None:
    offenders = [
        f"{module.path}:{function.lineno} {function.name}({', '.join(names)})"
        for module in ALL.values()
        for function in functions(module)
        if (names := unannotated(function))
    ]
    assert_none(offenders, "Annotate these arguments:")


def test_packages_hold_no_unfinished_notes() -> None:
    note = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
    offenders = [
        f"{path.relative_to(ROOT).as_posix()}:{number}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if note.search(line)
    ]
    assert_none(offenders, "Do it now, or open an issue and delete the note:")


def project_files() -> list[Path]:
    """Files git tracks; skips where the source came without its repository."""
    run = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        pytest.skip(f"not a git checkout: {run.stderr.strip()}")
    return [
        path
        for name in run.stdout.split("\0")
        if name and (path := ROOT / name).is_file()
    ]


def test_no_text_names_a_machine_path_or_a_registry() -> None:
    offenders = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        offenders += [
            f"{path.relative_to(ROOT).as_posix()}:{number} has {found.group()!r}"
            for number, line in enumerate(text.splitlines(), 1)
            if (found := MACHINE_PATH.search(line) or REGISTRY_HOST.search(line))
        ]
    assert_none(
        offenders,
        "Use relative paths, and leave the package index to each person's pip"
        " settings:",
    )
