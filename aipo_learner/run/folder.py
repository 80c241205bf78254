"""A run on disk: checkpoints that are whole or absent, the reply journal, and what a
resumed run may differ in.

    out/config.json  metrics.jsonl  journal.jsonl  episodes/step-000010.jsonl
    out/checkpoints/step-000025/
        policy/       a Hugging Face folder, float32
        optimizer/    the optimiser's state as safetensors, a file of each rank
        state.pt      the step and LoRA's adapters, loaded with weights_only=True
        queue.jsonl   episodes sampled for later steps, where max_staleness allows it

Every draw is keyed by (seed, step, group, rollout, turn), so the step is all there is
to know of randomness and data position. Any number of ranks resumes what any other
number wrote, in a folder that all of them see.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import (
    CheckpointError,
    DataError,
    Episode,
    Journal,
    check_entries,
    check_place,
    check_tree,
    link_anew,
    read_episodes,
    read_whole,
    shown,
    write_anew,
    write_episodes,
)
from aipo_learner.policy.distributed import gathered, rank
from aipo_learner.policy.load import policy_folder, save_policy
from aipo_learner.policy.lora import adapter_state
from aipo_learner.run.optimizer_state import load_optimizer, save_optimizer
from aipo_learner.settings.train import TrainConfig, read_object

FORMAT = 2
"""Raised when a checkpoint of one version can no longer be read by the next."""

_MAY_CHANGE = {
    "out",
    "keep_checkpoints",
    "checkpoint_every",
    "episodes_every",
    "bounds",
    "sampler",
    "max_sampler_gap",
    "microbatch_tokens",
    "evaluation",
    "loggers",
    "stop_after_idle_steps",
}
"""Settings that a resumed run may have otherwise than the run it continues."""


MAX_CHANGES = 20
"""More settings that differ are not told."""
FILES = ("config.json", "metrics.jsonl", "journal.jsonl", "lock", "run_id")
"""What a run writes in its folder, and in place of what is there."""
FOLDERS = ("checkpoints", "episodes", "failed", "tensorboard", "wandb")
"""The folders in it that a run writes to, and deletes from."""
_OWN_LINKS = ("wandb",)
"""Those in which a library puts links of its own."""
_STEP = re.compile(r"step-[0-9]{6,9}")


def check_folder(folder: Path) -> None:
    """Check every name that a run writes in its folder, which may be somebody else's.

    Raises:
        DataError: One is a link, a pipe or another thing that is written through, or
            never ends.
    """
    for name in FILES:
        check_place(folder / name)
    for name in FOLDERS:
        check_place(folder / name, is_folder=True)
        if name not in _OWN_LINKS:
            check_entries(folder / name)
    best = folder / "best"
    if best.exists() and not best.is_symlink():
        raise DataError(f"{best}: no link, which a run puts there. Move it away.")


class Run:
    """A run's folder. `step` is the first step still to be made; `journal` keeps the
    replies paid for since.
    """

    journal: Journal

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.folder = config.out
        self._checkpoints = self.folder / "checkpoints"
        self.step = max((int(path.name[5:]) for path in self._whole()), default=0)
        self.initial_policy = policy_folder(config.policy)
        self._best: Path | None = None
        self._writing: Future[Any] | None = None
        self._num_journal_bytes = 0

    @classmethod
    @contextlib.contextmanager
    def open(cls, config: TrainConfig) -> Iterator["Run"]:
        """Open or start the run in `config.out`; rank 0 does, and the others read what
        it left.

        Raises:
            CheckpointError: The folder holds a run with other settings, or cannot be
                written, or is not the same for all ranks.
        """
        run = cls(config)
        with contextlib.ExitStack() as stack:
            try:
                if rank() == 0:
                    check_folder(run.folder)
                    if run.step:
                        check_tree(run._at(run.step))
                    (run.folder / "episodes").mkdir(parents=True, exist_ok=True)
                    stack.enter_context(locked(run.folder))
                    run._prepare()
                if len(set(gathered([run.step]))) > 1:
                    raise CheckpointError(
                        f"{run.folder}: not all ranks see the checkpoint of step"
                        f" {run.step} in it. Put --out where all machines see it."
                    )
                run.journal = stack.enter_context(
                    contextlib.closing(Journal(run.folder / "journal.jsonl"))
                )
            except (OSError, ValueError) as error:
                raise CheckpointError(
                    f"{run.folder}: the run's folder cannot be used: {error}"
                ) from error
            try:
                yield run
            finally:
                run.settle(wait=True)

    def _prepare(self) -> None:
        """Write down the settings of a new run, compare those of an old one, delete
        what was left half made.
        """
        settings = {
            key: value
            for key, value in self.config.to_dict().items()
            if key not in _MAY_CHANGE
        }
        # The pool's limits may change too: they decide how agents are asked, not what.
        settings["environment"].pop("pool", None)
        settings["compute"] = {
            "lora_rank": self.config.compute.lora_rank
        }  # the rest changes only rounding
        text = (
            json.dumps(
                {
                    "format": FORMAT,
                    **settings,
                    "initial_policy": self.initial_policy,
                },
                indent=2,
            )
            + "\n"
        )
        path = self.folder / "config.json"
        self._checkpoints.mkdir(exist_ok=True)
        if self.step and path.is_file():
            self._check_settings(path, json.loads(text))
        for leftover in self._checkpoints.glob("*.writing"):
            shutil.rmtree(leftover)
        if not self.step:
            if path.is_file() and read_whole(path) != text.encode():
                # Replies of other agents to other questions.
                (self.folder / "journal.jsonl").unlink(missing_ok=True)
            write_anew(path, text)
        _own_copy(self.folder / "journal.jsonl")

    def _check_settings(self, path: Path, now: dict[str, Any]) -> None:
        """Compare the settings of the run that is resumed with those it was started
        with.

        Raises:
            CheckpointError: They differ, or cannot be read.
        """
        try:
            before = read_object(read_whole(path).decode("utf-8"))
        except ValueError as error:
            raise CheckpointError(
                f"{path}: not the settings of a run ({error}). Put back the file that"
                " the run wrote, or use another --out."
            ) from error
        if before.get("format", 1) != FORMAT:
            raise CheckpointError(
                f"{self.folder} holds a run of another version, in format"
                f" {shown(before.get('format', 1))}; this version reads {FORMAT}. Use"
                " the version that wrote it, or another --out."
            )
        changes = [
            f"{key[:80]} was {shown(before.get(key), 500)}, is"
            f" {shown(now.get(key), 500)}"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key)
        ]
        if changes:
            raise CheckpointError(
                f"{self.folder} holds a run with other settings"
                f" ({'; '.join(changes[:MAX_CHANGES])}). Use another --out, or delete"
                " the folder."
            )

    def policy_path(self) -> str:
        """Return where the weights to start from are; adapters are put on the initial
        policy again.
        """
        is_exact = self.step and not self.config.compute.lora_rank
        return str(self._at(self.step) / "policy") if is_exact else self.initial_policy

    def queued_episodes(self) -> list[Episode]:
        """Return the episodes that were sampled before the last checkpoint for steps
        after it.
        """
        path = self._at(self.step) / "queue.jsonl"
        return list(read_episodes(path)) if path.is_file() else []

    def episodes_path(self, step: int) -> Path:
        """Return the file for the episodes of a step, emptied."""
        path = self.folder / "episodes" / f"step-{step:06d}.jsonl"
        path.unlink(missing_ok=True)
        return path

    def restore(self, model: PreTrainedModel) -> None:
        """Load the model's adapters when the run is resumed."""
        if not self.step:
            return
        path = self._at(self.step) / "state.pt"
        with _unreadable_explained(path):
            state: dict[str, Any] = torch.load(path, weights_only=True)
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: written in format {state.get('format')}, this version reads"
                f" {FORMAT}. Use the version that wrote it, or start anew from the"
                f" weights: --policy {path.parent / 'policy'}."
            )
        model.load_state_dict(state["adapter"], strict=False)

    def restore_optimizer(
        self, model: PreTrainedModel, optimizer: torch.optim.Optimizer
    ) -> None:
        """Load the state of the optimiser of `model`, which may be sharded, when the
        run is resumed.
        """
        if self.step:
            path = self._at(self.step) / "optimizer"
            with _unreadable_explained(path):
                load_optimizer(path, model, optimizer)

    def save(
        self,
        step: int,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        optimizer: torch.optim.Optimizer,
        queued: Sequence[Episode] = (),
        *,
        keep_journal: bool = False,
    ) -> None:
        """Write the checkpoint after `step` steps, with the episodes that wait; drop
        old ones and the journal.

        The journal is kept where agents were already asked for steps to come. Several
        ranks write on while the next steps are made, see `settle`.

        Raises:
            CheckpointError: It cannot be written; earlier checkpoints are untouched.
        """
        self.settle(wait=True)
        scratch = self._at(step).with_suffix(".writing")
        with self._unwritable_explained(step):
            if rank() == 0:
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir()
                save_policy(model, tokenizer, scratch / "policy")
                state = {
                    "format": FORMAT,
                    "step": step,
                    "adapter": adapter_state(model),
                }
                torch.save(state, scratch / "state.pt")
                if queued:
                    write_episodes(scratch / "queue.jsonl", queued, reveal=True)
            gathered([None])
            written = save_optimizer(scratch / "optimizer", model, optimizer)
        self._writing, self.step = written, step
        self._num_journal_bytes = 0 if keep_journal else self.journal.size()
        self.settle()
        self.journal.forget()

    def settle(self, *, wait: bool = False) -> None:
        """Put the last checkpoint in its place if all ranks have written it, or once
        they have.

        Raises:
            CheckpointError: It could not be written; earlier checkpoints are untouched.
        """
        if self._writing is None or not (wait or self._writing.done()):
            return
        written, self._writing = self._writing, None
        target = self._at(self.step)
        scratch = target.with_suffix(".writing")
        with self._unwritable_explained(self.step):
            written.result()
            if rank():
                return
            for path in scratch.rglob("*"):
                if path.is_file():
                    _sync(path)
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        if self._num_journal_bytes:
            self.journal.clear(self._num_journal_bytes)
        self._keep_best()

    @contextlib.contextmanager
    def _unwritable_explained(self, step: int) -> Iterator[None]:
        target = self._at(step)
        try:
            yield
        except Exception as error:  # each library has a kind of its own for a full disk
            shutil.rmtree(target.with_suffix(".writing"), ignore_errors=True)
            raise CheckpointError(
                f"{target}: the checkpoint cannot be written: {error}. Earlier"
                " checkpoints are whole; make room and start the same command again."
            ) from error

    def mark_best(self, step: int) -> None:
        """Let `best` in the run's folder stand for the policy after `step` steps, and
        keep its checkpoint.
        """
        self.settle()
        self._best = self._at(step)
        if rank() == 0:
            self._keep_best()

    def _keep_best(self) -> None:
        """Link the best checkpoint once it is whole; delete all others but the
        newest.
        """
        if self._best and _is_whole(self._best):
            target = self._best.relative_to(self.folder) / "policy"
            link_anew(self.folder / "best", target)
        linked = (self.folder / "best").resolve().parent  # until the new best is whole
        for old in self._whole()[: -self.config.keep_checkpoints]:
            if old != self._best and old.resolve() != linked:
                # What is half deleted is never taken for whole.
                shutil.rmtree(old.rename(old.with_suffix(".writing")))

    def _at(self, step: int) -> Path:
        return self._checkpoints / f"step-{step:06d}"

    def _whole(self) -> list[Path]:
        return sorted(
            path for path in self._checkpoints.glob("step-*") if _is_whole(path)
        )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder.

    Raises:
        CheckpointError: Another process is in it.
    """
    with (folder / "lock").open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"{folder}: another process is training here. Wait for it, or use"
                " another --out."
            ) from error
        yield


@contextlib.contextmanager
def _unreadable_explained(path: Path) -> Iterator[None]:
    """Turn what a truncated or foreign file raises, which is of many kinds, into
    CheckpointError.
    """
    try:
        yield
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read ({type(error).__name__}). Delete {path.parent} to"
            " resume one checkpoint earlier."
        ) from error


def _own_copy(path: Path) -> None:
    """Give a run a file of its own where the one it appends to has another name: that
    one stays as it is.
    """
    if path.is_file() and path.stat().st_nlink > 1:
        write_anew(path, path.read_bytes())


def _is_whole(path: Path) -> bool:
    return (
        _STEP.fullmatch(path.name) is not None
        and (path / "state.pt").is_file()
        and (path / "policy").is_dir()
    )


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
