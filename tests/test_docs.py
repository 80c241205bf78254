"""What the documentation shows is run as it is written there: Python, `aipo …`, JSON
and TOML.

A page is run in a folder of its own, from top to bottom, so that a line finds what
earlier ones left: a run to report, a name to use; to try a part of it, select the page:
`-k README`. Training and evaluation are made small. What cannot be run everywhere is
exempt by a comment on the line before its block or paragraph:

    <!-- not run (needs a GPU) -->                  nothing of it is run
    <!-- not run (needs a network): hf:, gpqa -->   commands with one of these are not
"""

import doctest
import functools
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = (
    *("*.md", "docs/*.md", "examples/**/*.md"),
    *("benchmarks/*.md", "envs_data/*.md", "experiments/*.md"),
)
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for place in PLACES
    for path in ROOT.glob(place)
    if path.name != "CHANGELOG.md"  # its commands are those of its versions
)

SHELL = ("bash", "sh", "console", "")
SHOWN = ("text",)
"""Languages of blocks that are not for running."""

SMALL = {
    "train": "--num-steps 2 --groups-per-step 2 --group-size 2 --num-threads 1",
    "eval": "--num-tasks 2 --samples 2 --aided-samples 2",
}
"""Options that make a command take seconds; of an option given twice the last
counts.
"""
AT_ONCE = {"--help", "--print-config"}
"""Options with which a command only prints."""
ELSEWHERE = {
    "demo": "takes minutes; tests/learner/test_demo.py tests its parts",
    "warmstart": (
        "takes half an hour; tests/learner/test_tiny_policy.py tests its parts"
    ),
}
"""Commands that are not run here, and why."""
OPTIONAL = {
    *("mcp", "openenv", "peft", "ray", "sb3_contrib", "stable_baselines3"),
    *("tianshou", "torch", "torchrl", "transformers", "vllm"),
}
"""Packages without which a block is skipped; any other that is missing is a fault of
the block.
"""

SLOW_PYTHON = {"docs/rl_libraries.md"}
"""Pages whose Python trains; a page's Python is run whole."""

TASKS = """\
{"id": "sum", "prompt": "What is 2 + 2?", "answer": "4"}
{"id": "product", "prompt": "What is 3 * 4?", "answer": "12", "split": "test"}
"""
SOLUTIONS = """\
{"id": "sum", "solution": "2 + 2 is \\\\boxed{4}"}
"""
TIMEOUT_S = 300


@dataclass(frozen=True)
class Mark:
    """A comment that exempts what comes next; without names, all of it."""

    reason: str
    names: tuple[str, ...]

    def covers(self, text: str) -> bool:
        return not self.names or any(name in text for name in self.names)


@dataclass(frozen=True)
class Item:
    """A command, a command's bare name or a block, and the marks that stand before it.

    `kind` is "command", "name", or the language of the block.
    """

    page: str
    line: int
    kind: str
    text: str
    marks: tuple[Mark, ...]

    @property
    def is_exempt(self) -> bool:
        return any(mark.covers(self.text) for mark in self.marks)

    @property
    def is_slow(self) -> bool:
        if self.kind == "python":
            return self.page in SLOW_PYTHON
        words = self.text.split()
        if self.kind != "command" or AT_ONCE & set(words):
            return False
        # `aipo runs` lists what others made in `runs/`.
        return words[1] in (*SMALL, "runs") or "runs/" in self.text

    def __str__(self) -> str:
        shown = self.text if self.kind == "command" else self.kind
        return f"{self.page}:{self.line} {shown}"


PART = re.compile(
    r"^(?P<mark><!-- not run.*)$"
    r"|^ *```(?P<language>\S*).*\n(?P<block>(?s:.*?))^ *```$"
    r"|(?P<prose>(?:^(?! *```|<!-- not run).*\S.*\n?)+)",
    re.MULTILINE,
)
MARK = re.compile(r"<!-- not run \((?P<reason>[^)]+)\)(?:: (?P<names>\S.*?))? -->")
SPAN = re.compile(r"`(aipo\s[^`]+)`")


def read_mark(where: str, text: str) -> Mark:
    found = MARK.fullmatch(text.rstrip())
    if not found:
        raise ValueError(
            f"{where}: {text!r} exempts nothing. "
            "Write <!-- not run (REASON) --> or <!-- not run (REASON): TEXT, TEXT -->."
        )
    names = (found["names"] or "").split(",")
    return Mark(found["reason"], tuple(name.strip() for name in names if name.strip()))


def read_page(page: str, source: str) -> tuple[list[Item], list[str]]:
    """Return what can be run of a page, and what is wrong with its marks and
    languages.
    """
    items: list[Item] = []
    faults: list[str] = []
    marks: list[Mark] = []
    for part in PART.finditer(source):
        kind = "language" if part["language"] is not None else str(part.lastgroup)
        content = "block" if kind == "language" else kind
        line = source.count("\n", 0, part.start(content)) + 1
        where = f"{page}:{line}"
        if kind == "mark":
            marks.append(read_mark(where, part["mark"]))
            continue
        language = "prose" if kind == "prose" else part["language"]
        found = [
            Item(page, line + offset, kind, text, tuple(marks))
            for offset, kind, text in runnable(language, part[content])
        ]
        if language not in (*SHELL, *SHOWN, "prose", "python", "json", "toml"):
            faults.append(f"{where}: there is no check for {language!r}")
        faults += [f"{where}: {fault}" for fault in idle(marks, found)]
        items += found
        marks = []
    faults += [f"{page}: nothing follows the mark ({mark.reason})" for mark in marks]
    return items, faults


def idle(marks: list[Mark], items: list[Item]) -> Iterator[str]:
    """Yield what of the marks exempts none of the items."""
    for mark in marks:
        for name in mark.names or ("",):
            if not any(name in item.text for item in items):
                yield f"the mark ({mark.reason}) exempts nothing by {name!r}"


def runnable(language: str, text: str) -> Iterator[tuple[int, str, str]]:
    """Yield (lines before it, kind, text) of what can be run of a block or
    paragraph.
    """
    if language == "prose":
        for span in SPAN.finditer(text):
            words = span[1].split()
            kind = "command" if len(words) > 2 else "name"
            yield text.count("\n", 0, span.start()), kind, " ".join(words)
    elif language in SHELL:
        yield from commands(text)
    elif language not in SHOWN:
        yield 0, language, dedent(text)


def commands(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the lines of a shell block that begin with `aipo `, without comments."""
    for found in re.finditer(r"^ *(aipo (?:.*\\\n)*.*)$", text, re.MULTILINE):
        words = shlex.split(found[1].replace("\\\n", " "), comments=True)
        yield text.count("\n", 0, found.start()), "command", shlex.join(words)


def read(page: str) -> tuple[list[Item], list[str]]:
    return read_page(page, (ROOT / page).read_text(encoding="utf-8"))


ITEMS = [item for page in PAGES for item in read(page)[0] if not item.is_exempt]


def cases(*kinds: str) -> list[Any]:
    """Return the items of these kinds as cases of a parametrised test."""
    return [
        pytest.param(item, id=str(item), marks=[pytest.mark.slow] * item.is_slow)
        for item in ITEMS
        if item.kind in kinds
    ]


def furnish(folder: Path) -> None:
    """Put into a page's folder the files that pages speak of."""
    policy = ROOT / "envs_data" / "tiny_policy"
    for name in ("MODEL", "PATH", "PATH_OR_HUB_NAME"):
        (folder / name).symlink_to(policy, target_is_directory=True)
    shown = [item for item in read("docs/episodes.md")[0] if item.kind == "json"]
    episodes = [json.dumps(json.loads(item.text)) + "\n" for item in shown]
    (folder / "made.jsonl").write_text("".join(episodes), encoding="utf-8")
    (folder / "tasks.jsonl").write_text(TASKS, encoding="utf-8")
    (folder / "solved.jsonl").write_text(SOLUTIONS, encoding="utf-8")
    (folder / "PROG.py").write_text("print(6 * 7)\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives each page the folder in which it is run."""

    @functools.cache
    def folder_of(page: str) -> Path:
        folder = tmp_path_factory.mktemp(Path(page).stem)
        furnish(folder)
        return folder

    return folder_of


@pytest.fixture(scope="module")
def faults_of(
    folder_of: Callable[[str], Path],
) -> Callable[[str], dict[str, dict[str, str]]]:
    """Return a function that runs the Python of a page, once, and gives its faults by
    line.
    """

    @functools.cache
    def faults_of(page: str) -> dict[str, dict[str, str]]:
        folder = folder_of(page)
        given, out = folder / "blocks.json", folder / "faults.json"
        blocks = [(item.line, item.text) for item in python_of(page)]
        given.write_text(json.dumps({"page": str(ROOT / page), "blocks": blocks}))
        done = run(folder, str(ROOT / "tests" / "run_blocks.py"), str(given), str(out))
        assert done.returncode == 0, done.stderr
        faults: dict[str, dict[str, str]] = json.loads(out.read_text())
        return faults

    return faults_of


def python_of(page: str) -> list[Item]:
    return [item for item in ITEMS if (item.page, item.kind) == (page, "python")]


def environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    offline = {"HF_HUB_OFFLINE": "1"}
    return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join(paths)}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a page's folder, with nobody to type."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def skip_without_extra(told: str) -> None:
    """Skip where a command says that it needs a package that is not installed."""
    missing = re.search(r"needs (\w+), which is not installed", told)
    if missing and missing[1] in OPTIONAL:
        pytest.skip(missing[0])


@pytest.mark.parametrize("page", PAGES)
def test_every_mark_exempts_something_and_every_block_has_a_check(page: str):
    assert read(page)[1] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_is_closed(page: str):
    source = (ROOT / page).read_text(encoding="utf-8")
    blocks = [part for part in PART.finditer(source) if part["language"] is not None]
    assert len(re.findall(r"^ *```", source, re.MULTILINE)) == 2 * len(blocks)


def headings(source: str) -> set[str]:
    """Return the anchors of a page's headings, as Markdown makes them."""
    anchors = set()
    for heading in re.findall(r"^#+ (.*)$", source, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
        anchors.add(re.sub(r"[^\w\- ]", "", shown).replace(" ", "-"))
    return anchors


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: str):
    source = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", source)
    lost = []
    for link in links:
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        is_lost = not target.exists()
        if anchor and not is_lost:
            is_lost = anchor not in headings(target.read_text(encoding="utf-8"))
        if is_lost:
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("item", cases("python"))
def test_python(item: Item, faults_of: Callable[[str], dict[str, dict[str, str]]]):
    fault = faults_of(item.page).get(str(item.line))
    if fault and fault["missing"] in OPTIONAL:
        pytest.skip(f"{fault['missing']} is not installed")
    if fault:
        pytest.fail(f"{item}\n{fault['traceback']}", pytrace=False)


@pytest.mark.parametrize("item", cases("json", "toml"))
def test_data(item: Item):
    parse = {"json": json.loads, "toml": tomllib.loads}[item.kind]
    try:
        parse(item.text)
    except ValueError as error:
        pytest.fail(f"{item}: {error}", pytrace=False)


@pytest.mark.parametrize("item", cases("command"))
def test_command(item: Item, folder_of: Callable[[str], Path]):
    name, *options = shlex.split(item.text)[1:]
    if name in ELSEWHERE:
        pytest.skip(ELSEWHERE[name])
    if name == "sandbox" and sys.platform != "linux":
        pytest.skip("the process sandbox needs Linux")
    if name in SMALL and not {*AT_ONCE, "--dry-run"} & set(options):
        options += SMALL[name].split()
    arguments = ["-m", "aipo_env.cli", name, *options]
    # Over standard input a server ends with its client, and nobody types here.
    if name == "serve" and "--stdio" not in options:
        assert_serves(folder_of(item.page), [*arguments, "--port", "0"])
        return
    done = run(folder_of(item.page), *arguments)
    skip_without_extra(done.stderr)
    told = f"{item}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    if done.returncode != 0 or "Traceback" in done.stdout + done.stderr:
        pytest.fail(f"exit code {done.returncode}: {told}", pytrace=False)


def assert_serves(folder: Path, arguments: list[str]) -> None:
    """Start a server, wait until it has told its address and lived a while, and stop
    it.
    """
    log = folder / "server.log"
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 20
        while server.poll() is None and time.monotonic() < deadline:
            if "http://" in log.read_text():
                break
            time.sleep(0.1)
        skip_without_extra(log.read_text())
        # The address is told before it is listened on.
        time.sleep(1)
        told = log.read_text()
        assert server.poll() is None, f"{folder}, {arguments}: it ended\n{told}"
        assert "http://" in told
    finally:
        server.kill()
        server.wait()


def test_every_command_that_is_named_exists(tmp_path: Path):
    usage = run(tmp_path, "-m", "aipo_env.cli", "--help").stdout
    there = re.findall(r"^  (\w+)", usage, re.MULTILINE)
    named = [item for item in ITEMS if item.kind == "name"]
    absent = [f"{i.page}:{i.line} {i.text}" for i in named if i.text[5:] not in there]
    assert "train" in there
    assert absent == []


def test_a_page_is_read_with_its_marks():
    page = dedent("""\
        Ask `aipo
        doctor`, or `aipo tasks toy`.
        <!-- not run (a person): play, gone -->
        <!-- not run (a network): hf: -->
        ```bash
        make demo    # aipo play
        aipo play    # you
        aipo train --recipe toy \\
                   --note 'a # b'
        aipo tasks hf:math_500
        ```

        <!-- not run (a fragment) -->
        ```python
        x = y
        ```
        <!-- not run (nobody) -->
        Nothing to run.

        ```pyhton
        ```
        """)
    items, faults = read_page("p.md", page)
    assert [(i.line, i.kind, i.text, i.is_exempt) for i in items] == [
        (1, "name", "aipo doctor", False),
        (2, "command", "aipo tasks toy", False),
        (7, "command", "aipo play", True),
        (8, "command", "aipo train --recipe toy --note 'a # b'", False),
        (10, "command", "aipo tasks hf:math_500", True),
        (15, "python", "x = y\n", True),
        (21, "pyhton", "", False),
    ]
    assert faults == [
        "p.md:6: the mark (a person) exempts nothing by 'gone'",
        "p.md:18: the mark (nobody) exempts nothing by ''",
        "p.md:21: there is no check for 'pyhton'",
    ]


@pytest.mark.parametrize("text", ["<!-- not run -->", "<!-- not run (): play -->"])
def test_a_mark_has_a_reason(text: str):
    with pytest.raises(ValueError, match=r"p.md:3: '<!-- not run .* exempts nothing"):
        read_mark("p.md:3", text)


def modules_with_examples() -> list[str]:
    """Return the modules of both packages in whose docstrings there are examples."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("aipo_env", "aipo_learner")
        for path in sorted((ROOT / package).rglob("*.py"))
        if re.search(r"(?m)^ *>>> ", path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings(name: str):
    try:
        module = importlib.import_module(name.removesuffix(".__init__"))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    told: list[str] = []
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(module):
        runner.run(example, out=told.append)
    assert runner.tries > 0
    assert runner.failures == 0, "".join(told)


def test_the_first_block_of_the_readme_solves_a_problem_of_mathematics(
    capsys: pytest.CaptureFixture[str],
):
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    block = page.partition("```python\n")[2].partition("```")[0]
    assert 'gym.make("AIPO-Math-Turn-v0")' in block
    exec(block, {})
    shown = capsys.readouterr().out
    assert "the numerators add and the denominator stays" in shown
    assert "wrong at \\frac{8}{15}; numerators and denominators were added" in shown
    assert shown.splitlines()[-1] == "1.0 completed"
