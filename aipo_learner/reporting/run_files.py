"""What stands in a run's folder beside its metrics: its settings and its evaluations.

The folder may be somebody else's: no link in it is followed, no file is read without
bound, and what cannot be read is said on the page and does not fail it.
"""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aipo_env import DataError, check_place, read_whole, shown
from aipo_learner.run.metrics_log import is_number
from aipo_learner.settings.arguments import read_object

MAX_SETTINGS_BYTES = 2**20
"""Longer settings are not read."""
MAX_SCORES_BYTES = 64 * 2**20
"""Nor are longer scores, which count the correct answers to each task."""
MAX_EVALUATIONS = 100
"""More of a run are not shown."""
MAX_SETTING_CHARS = 300
"""So much of a setting is shown."""
MAX_SETTINGS = 300
"""More of them are not."""
_SCORES = ("scores.json", "*/scores.json", "*/*/scores.json")
"""Where `aipo eval --out` may have put scores: in the run's folder, in one within it,
and, of several task sets, in one of each set.
"""
_MAX_PARTS = 20
"""A setting of more parts is shown as JSON's value reads in Python."""
_COLUMNS = ("unaided", "aided")
"""What scores are of: the policy alone, and with its agents."""
_CREDENTIALS = re.compile(r"//[^/@\s]*@")
"""A user and a password in an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `aipo eval` measured.

    Args:
        name: Of the task set, or else of the folder.
        folder: Where it stands.
        scores: As it wrote them.
    """

    name: str
    folder: Path
    scores: Mapping[str, Any] = field(default_factory=dict)


def read_settings(run: Path) -> tuple[Mapping[str, Any], list[str]]:
    """Return a run's settings, and remarks on what of them cannot be read."""
    return _read_object(run, "config.json", MAX_SETTINGS_BYTES)


def read_evaluations(run: Path) -> tuple[list[Evaluation], list[str]]:
    """Return the evaluations in a run's folder, and remarks on those left out."""
    paths: list[Path] = []
    for pattern in _SCORES:
        paths += [path for path in sorted(run.glob(pattern)) if _is_own(path, run)]
    remarks: list[str] = []
    if len(paths) > MAX_EVALUATIONS:
        remarks.append(f"Only the first {MAX_EVALUATIONS} evaluations are shown.")
    evaluations: dict[str, Evaluation] = {}
    for path in paths[:MAX_EVALUATIONS]:
        place = path.relative_to(run).as_posix()
        scores, faults = _read_object(run, place, MAX_SCORES_BYTES)
        remarks += faults
        if any(isinstance(scores.get(name), Mapping) for name in _COLUMNS):
            folder = path.parent.relative_to(run).as_posix()
            name = _evaluation_name(scores, folder)
            # Of two of one task set, the folders tell which is which.
            if name in evaluations:
                name = f"{name} ({_bounded(folder)})"
            evaluations[name] = Evaluation(name=name, folder=path.parent, scores=scores)
        elif not faults:
            remarks.append(f"Left out: {place} holds no scores.")
    return list(evaluations.values()), remarks


def _evaluation_name(scores: Mapping[str, Any], folder: str) -> str:
    """Return the name of the task set of an evaluation, or else of its folder."""
    name = lookup(scores, "settings", "tasks")
    if isinstance(name, str) and name:
        return _bounded(name)
    return "evaluation" if folder == "." else _bounded(folder)


def _is_own(path: Path, run: Path) -> bool:
    """Return whether a path within a run's folder is reached by no link."""
    parts = path.relative_to(run).parts
    ways = [run.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    return not any(way.is_symlink() for way in ways)


def _read_object(
    run: Path, name: str, most: int
) -> tuple[Mapping[str, Any], list[str]]:
    """Return the object in a JSON file, and remarks: empty where there is no file."""
    path = run / name
    try:
        if not check_place(path).is_file():
            return {}, []
        return read_object(read_whole(path, most).decode("utf-8")), []
    except (DataError, OSError, ValueError, RecursionError) as error:
        # Where the folder stands is nothing for a page that others may get.
        reason = _bounded(str(error).replace(str(path), name))
        return {}, [f"Left out: {name} cannot be read ({reason.removesuffix('.')})."]


def lookup(tree: Any, *keys: str) -> Any:
    """Return what stands under nested keys, or None."""
    for key in keys:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def setting_text(value: Any) -> str:
    """Return a setting as readers see it: bounded, and without a password."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if is_number(value):
        return f"{value:g}" if isinstance(value, float) else f"{value:,}"
    if isinstance(value, str):
        return _bounded(value)
    if isinstance(value, Mapping) and len(value) <= _MAX_PARTS:
        # One level: it may be nested deeply.
        parts = [f"{key}: {_part_text(part)}" for key, part in value.items()]
        return _bounded(", ".join(parts))
    return _bounded(shown(value, MAX_SETTING_CHARS + 1))


def _part_text(value: Any) -> str:
    """Return a value within a setting in words."""
    return value if isinstance(value, str) else shown(value, MAX_SETTING_CHARS)


def flat_settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return all settings that are given, by dotted names, in their order."""
    rows: list[tuple[str, str]] = []
    # What is still to be done, and no recursion: it may be nested deeply.
    waiting = deque[tuple[str, Any]]([("", settings)])
    while waiting and len(rows) < MAX_SETTINGS:
        name, value = waiting.popleft()
        if isinstance(value, Mapping) and name.count(".") < _MAX_DEPTH:
            prefix = f"{name}." if name else ""
            parts = [(f"{prefix}{_bounded(key)}", part) for key, part in value.items()]
            waiting.extendleft(reversed(parts))
        elif value not in (None, "", [], {}):
            rows.append((name, setting_text(value)))
    return rows


_MAX_DEPTH = 5
"""Objects within objects: those further in are shown as they are."""


def _bounded(text: str) -> str:
    """Return the start of a text, without a password in an address."""
    text = _CREDENTIALS.sub("//", text[: 2 * MAX_SETTING_CHARS])
    if len(text) > MAX_SETTING_CHARS:
        return f"{text[:MAX_SETTING_CHARS]}…"
    return text
