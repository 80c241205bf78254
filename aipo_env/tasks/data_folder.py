"""Which files of a folder hold rows, and which split each is for by its name."""

import re
from collections.abc import Iterator
from pathlib import Path

from aipo_env.errors import DataError
from aipo_env.records import Split
from aipo_env.tasks.rows import DATA_SUFFIXES

_NO_ROWS = re.compile(
    r"""
      (^|/) \.              # .gitattributes, .cache/huggingface/...
    | (^|/) dataset_infos?  # dataset_info.json
    """,
    re.VERBOSE,
)
"""Names of files that are about a dataset and hold none of it."""
_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "validation": "test",
    "valid": "test",
    "val": "test",
    "dev": "test",
    "eval": "test",
    "testing": "test",
    "tests": "test",
    "validate": "test",
    "evaluation": "test",
    "heldout": "test",
    "holdout": "test",
}
"""What a word in a file's name says that its rows are for."""
_HELD_OUT = re.compile(r"(held|hold)[-_ ]out")
"""One word in two: `held_out`, `hold-out`."""
_MAX_FILES = 20_000
"""So many files and folders are looked at in a folder."""
_MAX_LISTED = 20
"""So many names of files stand in a message."""


def files_by_split(path: Path) -> Iterator[tuple[Path, Split | None]]:
    """Yield the files of rows in a folder, in the order of their names.

    Each comes with what its name says that its rows are for; None where it says
    nothing. A path that is no folder is yielded as it is.

    Raises:
        DataError: There is no such file in the folder, or only some say their split.
    """
    if not path.is_dir():
        yield path, None
        return
    try:
        names = _names_in(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be looked through: {error}.") from error
    chosen = _with_rows(names)
    if not chosen:
        listed = ", ".join(names[:_MAX_LISTED]) or "none"
        raise DataError(
            f"{path}: no file of tasks ({', '.join(DATA_SUFFIXES)}) is in the folder;"
            f" files there: {listed}."
        )
    splits = {name: split_by_name(name) for name in chosen}
    silent = [name for name, split in splits.items() if split is None]
    if silent and len(silent) < len(chosen):
        raise DataError(
            f"{path}: some files say by their names which split they are for, and"
            f" {', '.join(silent[:_MAX_LISTED])} says none, or both. Call it train or"
            " test, or take it out of the folder."
        )
    for name, split in splits.items():
        yield path / name, split


def _names_in(folder: Path) -> list[str]:
    """Return the names of all files in a folder and its folders, in order.

    Raises:
        DataError: There are too many: it is no folder of tasks.
    """
    names: list[str] = []
    for number, file in enumerate(folder.rglob("*")):
        # Somebody else's run may name the whole disk.
        if number == _MAX_FILES:
            raise DataError(
                f"{folder}: more than {_MAX_FILES:,} files are in the folder. Give one"
                " that holds tasks alone, or a file."
            )
        if file.is_file():
            names.append(file.relative_to(folder).as_posix())
    return sorted(names)


def _with_rows(names: list[str]) -> list[str]:
    """Return the names of files of rows, the same data once.

    Of files that are called alike but for their endings, the first of `DATA_SUFFIXES`
    is read.
    """
    by_stem: dict[str, list[str]] = {}
    for name in names:
        stem, dot, ending = name.rpartition(".")
        if dot + ending in DATA_SUFFIXES and not _NO_ROWS.search(name):
            by_stem.setdefault(stem, []).append(dot + ending)
    return [
        stem + min(endings, key=DATA_SUFFIXES.index)
        for stem, endings in by_stem.items()
    ]


def split_by_name(name: str) -> Split | None:
    """Return what a file's name says that its rows are for.

    `data/test-00000.parquet`, `gsm8k_train.jsonl`; None where it says nothing, or both.
    """
    joined = _HELD_OUT.sub(r"\1out", name.lower())
    words = re.split(r"[\W_]+", joined)
    splits = {_SPLITS[word] for word in words if word in _SPLITS}
    if len(splits) != 1:
        return None
    [split] = splits
    return split
