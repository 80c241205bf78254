"""The command `aipo view`."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from tyro.conf import Positional

from aipo_env.episode import Episode
from aipo_env.errors import ConfigError, DataError
from aipo_env.files import is_same_place, is_stream, write_anew, write_output
from aipo_env.stored import read_episodes
from aipo_env.viewer.render import episodes_html

MAX_EPISODES_SHOWN = 1_000
"""Episodes on a page; browsers are slow with more."""
_PLACES = (
    "episodes.jsonl",
    "episodes/*.jsonl",
    "failed/*.jsonl",
    "*/episodes.jsonl",
    "*/*/episodes.jsonl",
    "*/episodes/*.jsonl",
)
"""Where a folder of a run, of evaluations or of several runs has its episodes."""
_ANY_FILE = "*.jsonl"
"""What is shown of a folder that has none there: its files."""
_OF_STEP = re.compile(r"step-0*([0-9]+)")
"""The name of the file of a step's episodes."""
_PAGE_NAME = "episodes.html"
"""Of the page about a folder, or several files."""


def view(
    path: Positional[Path],
    further: Positional[tuple[Path, ...]] = (),
    out: Path | None = None,
) -> None:
    """Write a web page that shows recorded episodes.

    Args:
        path: JSON-lines file of episodes, or a folder: of a run, of runs, or with such
            files.
        further: More of them, on the same page.
        out: The page. By default beside the file, in the folder, or, of several,
            episodes.html in the current folder. /dev/stdout prints it.
    """
    paths = (path, *further)
    page = out or _default_page(paths)
    files = [pair for one in paths for pair in _sources(one, several=len(paths) > 1)]
    for file, _ in files:
        if is_same_place(page, file):
            raise ConfigError(
                f"view: the page would overwrite {file}; name another with --out."
            )
    # One more than are shown, to know whether there are more.
    exhibits = list(islice(_read(files), MAX_EPISODES_SHOWN + 1))
    if not exhibits:
        names = ", ".join(str(one) for one in paths)
        raise DataError(f"{names}: holds no episode.")
    has_more = len(exhibits) > MAX_EPISODES_SHOWN
    episodes, sources = zip(*exhibits[:MAX_EPISODES_SHOWN], strict=True)
    html = episodes_html(episodes, title=_title(paths), sources=sources)
    # A page beside the file is ours: it goes into no stream that somebody put there.
    write = write_output if out else write_anew
    try:
        write(page, html)
    except (OSError, DataError) as error:
        raise ConfigError(
            f"view: the page cannot be written: {error}. Name another with --out."
        ) from error
    if out is not None and is_stream(out):
        return
    if has_more:
        print(
            f"The page shows the first {MAX_EPISODES_SHOWN:,} episodes. Name single"
            " files to see others."
        )
    print(f"Page: {page}")


def _default_page(paths: Sequence[Path]) -> Path:
    """Return where the page goes unless it is said."""
    if len(paths) > 1:
        return Path(_PAGE_NAME)
    [path] = paths
    if path.is_dir():
        return path / _PAGE_NAME
    return path.with_suffix(".html")


def _title(paths: Sequence[Path]) -> str:
    """Return the title of the page."""
    # "." and ".." have a name of their own.
    names = [path.name or path.resolve().name for path in paths]
    return ", ".join(names)


def _sources(path: Path, *, several: bool) -> Iterator[tuple[Path, str]]:
    """Yield the files of episodes at a path, each with what readers are told of it.

    Args:
        several: Whether the page shows other paths too, so that it is told from them.

    Raises:
        DataError: There is none in the folder.
    """
    if not path.is_dir():
        match = _OF_STEP.fullmatch(path.stem)
        name = f"step {match[1]}" if match else ""
        yield path, f"{path}: {name}".removesuffix(": ") if several else name
        return
    files = [file for place in _PLACES for file in _own_files(path, place)]
    files = files or _own_files(path, _ANY_FILE)
    if not files:
        raise DataError(
            f"{path}: holds no file of episodes. Give the folder of a run, or one with"
            " .jsonl files of episodes."
        )
    for file in dict.fromkeys(files):
        name = _name_within(file.relative_to(path))
        yield file, f"{path}: {name}" if several else name


def _own_files(folder: Path, place: str) -> list[Path]:
    """Return the files of a folder that a pattern fits, in order.

    None of them by a link: those in a folder from somebody else may lead anywhere. Nor
    what is no file, and may never end.
    """
    files: list[Path] = []
    for file in sorted(folder.glob(place)):
        parts = file.relative_to(folder).parts
        ways = [folder.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
        if not any(way.is_symlink() for way in ways) and file.is_file():
            files.append(file)
    return files


def _name_within(path: Path) -> str:
    """Return what readers are told of a file within a folder: "step 12"."""
    match = _OF_STEP.fullmatch(path.stem)
    folder = path.parent.as_posix()
    if not match:
        return path.with_suffix("").as_posix()
    step = f"step {match[1]}"
    if folder in (".", "episodes"):
        return step
    return f"{folder.removesuffix('/episodes')}, {step}"


def _read(files: Sequence[tuple[Path, str]]) -> Iterator[tuple[Episode, str]]:
    """Yield the episodes of files, each with where it comes from."""
    for file, source in files:
        for episode in read_episodes(file):
            yield episode, source
