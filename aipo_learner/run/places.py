"""What stands in a run's folder, as far as it is read without torch."""

import contextlib
import fcntl
import re
import time
from collections.abc import Iterator
from pathlib import Path

from aipo_env import CheckpointError

STEP_PREFIX = "step-"
"""Begins the names of what belongs to a step."""
STEP = re.compile(r"step-[0-9]{6,9}")
"""Name of a checkpoint's folder; one that is not whole has a suffix."""
_DEPTH = 3
"""Folders between a run's and the policy of one of its checkpoints."""
_PATIENCE_S = 0.2
"""How long a lock is waited for: whoever only looks whether it is held is gone then."""


def run_of(policy: Path) -> Path | None:
    """Return the run's folder that a path is, or is in; None where there is none.

    `runs/mine`, `runs/mine/best`, `runs/mine/checkpoints/step-000050/policy`.
    """
    for folder in (policy, *list(policy.parents)[:_DEPTH]):
        has_settings = (folder / "config.json").is_file()
        # A model's folder has a config.json too, but no checkpoints.
        if has_settings and (folder / "checkpoints").is_dir():
            return folder
    return None


def whole_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder that are whole, in order."""
    return sorted(path for path in folder.glob(f"{STEP_PREFIX}*") if is_whole(path))


def is_whole(path: Path) -> bool:
    """Return whether a path is a checkpoint that was put in its place."""
    return (
        STEP.fullmatch(path.name) is not None
        and (path / "state.pt").is_file()
        and (path / "policy").is_dir()
    )


def step_of(checkpoint: Path) -> int:
    """Return how many steps a checkpoint's weights have made."""
    return int(checkpoint.name.removeprefix(STEP_PREFIX))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder.

    The lock is the kernel's and ends with the process, however that ends; the file
    stays.

    Raises:
        CheckpointError: Another process is in it.
    """
    with (folder / "lock").open("a", encoding="utf-8") as file:
        try:
            _lock(file.fileno())
        except BlockingIOError as error:
            raise CheckpointError(
                f"{folder}: another process is training here. Wait for it, or use"
                " another --out."
            ) from error
        yield


def _lock(file: int) -> None:
    """Take a lock for this process alone; raise BlockingIOError if another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_PATIENCE_S)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(folder: Path) -> bool:
    """Return whether a process trains in a folder; nothing is written in it."""
    path = folder / "lock"
    # Not a pipe, which would wait for a writer.
    if not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
