"""A run on disk: checkpoints that are whole or absent, the reply journal, and what a resumed run may differ in.

    out/config.json  metrics.jsonl  journal.jsonl  episodes/step-000010.jsonl
    out/checkpoints/step-000025/policy/   a Hugging Face folder, float32
    out/checkpoints/step-000025/state.pt  the optimiser and the step, loaded with weights_only=True

Every draw is keyed by (seed, step, group, rollout, turn), so the step is all there is to know of randomness
and data position.
"""

import fcntl
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import CheckpointError, Journal
from aipo_learner.config import TrainConfig
from aipo_learner.policy import policy_folder, save_policy

FORMAT = 1
"""Raised when a checkpoint of one version can no longer be read by the next."""

_MAY_CHANGE = {
    "out",
    "keep_checkpoints",
    "checkpoint_every",
    "episodes_every",
    "pool",
}
"""Settings that a resumed run may have otherwise than the run it continues."""


class Run:
    """A run's folder. `step` is the first step still to be made; `journal` keeps the replies paid for since."""

    journal: Journal

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.folder = config.out
        self._checkpoints = self.folder / "checkpoints"
        self.step = max(
            (_step_of(path) for path in self._checkpoints.glob("step-*") if _is_whole(path)),
            default=0,
        )
        self.initial_policy = policy_folder(config.policy)
        self._lock = FolderLock()

    @classmethod
    def open(cls, config: TrainConfig) -> "Run":
        """Open or start the run in `config.out`.

        Raises:
            CheckpointError: The folder holds a run with other settings, or cannot be written.
        """
        run = cls(config)
        settings = {key: value for key, value in config.to_dict().items() if key not in _MAY_CHANGE}
        settings = json.loads(json.dumps({**settings, "initial_policy": run.initial_policy}))
        path = run.folder / "config.json"
        try:
            (run.folder / "episodes").mkdir(parents=True, exist_ok=True)
            run._lock.take(run.folder)
            run._checkpoints.mkdir(exist_ok=True)
            before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and run.step else settings
            run._check_same(before, settings)
            for leftover in run._checkpoints.glob("*.writing"):
                shutil.rmtree(leftover)
            if not run.step:
                if _holds_other(path, settings):
                    # Replies of other agents to other questions.
                    (run.folder / "journal.jsonl").unlink(missing_ok=True)
                scratch = path.with_suffix(".writing")
                scratch.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
                scratch.replace(path)
            run.journal = Journal(run.folder / "journal.jsonl")
        except (OSError, ValueError, CheckpointError) as error:
            run._lock.close()
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{run.folder}: the run's folder cannot be used: {error}") from error
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.journal.close()
        self._lock.close()

    def policy_path(self) -> str:
        """Return where the weights to start from are."""
        return str(self._at(self.step) / "policy") if self.step else self.initial_policy

    def episodes_path(self, step: int) -> Path:
        """Return the file for the episodes of a step, emptied."""
        path = self.folder / "episodes" / f"step-{step:06d}.jsonl"
        path.unlink(missing_ok=True)
        return path

    def restore_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Load the optimiser's state when the run is resumed."""
        if not self.step:
            return
        path = self._at(self.step) / "state.pt"
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
        except Exception as error:  # a truncated or foreign file fails in many ways
            raise CheckpointError(
                f"{path}: cannot be read ({type(error).__name__}). Delete {path.parent} to resume one checkpoint earlier."
            ) from error
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: written in format {state.get('format')}, this version reads {FORMAT}. Use the version that "
                f"wrote it, or start anew from the weights: --policy {path.parent / 'policy'}."
            )
        optimizer.load_state_dict(state["optimizer"])

    def save(
        self,
        step: int,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Write the checkpoint after `step` steps, then drop old ones and the journal.

        Raises:
            CheckpointError: It cannot be written; earlier checkpoints are untouched.
        """
        target = self._at(step)
        scratch = target.with_name(target.name + ".writing")
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            save_policy(model, tokenizer, scratch / "policy")
            state = {"format": FORMAT, "step": step, "optimizer": optimizer.state_dict()}
            torch.save(state, scratch / "state.pt")
            for path in scratch.rglob("*"):
                if path.is_file():
                    _sync(path)
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        except Exception as error:  # each library has a kind of its own for a full disk
            shutil.rmtree(scratch, ignore_errors=True)
            raise CheckpointError(
                f"{target}: the checkpoint cannot be written: {error}. Earlier checkpoints are whole; make room and "
                "start the same command again."
            ) from error
        self.step = step
        self.journal.clear()
        whole = sorted(path for path in self._checkpoints.glob("step-*") if _is_whole(path))
        for old in whole[: -self.config.keep_checkpoints]:
            shutil.rmtree(old)

    def _at(self, step: int) -> Path:
        return self._checkpoints / f"step-{step:06d}"

    def _check_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if differing:
            shown = "; ".join(f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in differing)
            raise CheckpointError(
                f"{self.folder} holds a run with other settings ({shown}). Use another --out, or delete the folder."
            )


class FolderLock:
    """Keeps other processes out of a folder for as long as this one lives."""

    _file: IO[str] | None = None

    def take(self, folder: Path) -> None:
        """Lock the folder, or raise CheckpointError when another process has it."""
        self._file = (folder / "lock").open("a", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"{folder}: another process is training here. Wait for it, or use another --out."
            ) from error

    def close(self) -> None:
        """Let others in."""
        if self._file:
            self._file.close()


def _holds_other(path: Path, settings: dict[str, Any]) -> bool:
    """Return whether a configuration file is there that is unreadable or holds other settings."""
    try:
        return path.is_file() and bool(json.loads(path.read_text(encoding="utf-8")) != settings)
    except ValueError:
        return True


def _is_whole(path: Path) -> bool:
    return path.name[5:].isdecimal() and (path / "state.pt").is_file() and (path / "policy").is_dir()


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
