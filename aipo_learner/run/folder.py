"""A run on disk: checkpoints that are whole or absent, and the journal of replies.

    out/config.json  metrics.jsonl  journal.jsonl  episodes/step-000010.jsonl
    out/checkpoints/step-000025/
        policy/       a Hugging Face folder, float32 or bfloat16
        adapter/      with LoRA, the adapter alone, as peft writes it
        optimizer/    the optimiser's state as safetensors, a file of each rank
        state.pt      the step, LoRA's adapters, and the weights in float32 where the
                      policy is not; loaded with weights_only=True
        queue.jsonl   episodes sampled for later steps, where max_staleness allows it
        competence.json   running success, where it decides who is aided

Every draw is keyed by (seed, step, group, rollout, turn), so the step is all there is
to know of randomness and data position. Any number of ranks resumes what any other
number wrote, in a folder that all of them see.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import (
    CheckpointError,
    DataError,
    Episode,
    Journal,
    PolicyError,
    Split,
    TaskSource,
    check_entries,
    check_place,
    check_tree,
    link_anew,
    read_episodes,
    read_whole,
    shown,
    tasks_digest,
    write_anew,
    write_episodes,
)
from aipo_learner.policy.chat import check_template
from aipo_learner.policy.distributed import gathered, rank
from aipo_learner.policy.load import load_tokenizer, policy_folder, save_policy
from aipo_learner.policy.lora import adapter_state, load_adapter_state, save_adapter
from aipo_learner.run.optimizer_state import (
    check_optimizer,
    load_optimizer,
    save_optimizer,
)
from aipo_learner.run.places import (
    STEP_PREFIX,
    is_whole,
    locked,
    step_of,
    whole_checkpoints,
)
from aipo_learner.settings.aid import with_aid
from aipo_learner.settings.arguments import read_object
from aipo_learner.settings.train import TrainConfig

_log = logging.getLogger("aipo_learner")
FORMAT = 3
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
    "checkpoints",
}
"""Settings that a resumed run may have otherwise than the run it continues."""
_DECAY = "optimizer.decay"
"""Stands in the comparison for the one setting of the optimiser that is of a schedule.
"""
_OF_SCHEDULES = (
    "num_steps",
    "lr",
    "warmup_steps",
    "lr_end",
    "anneal_from",
    _DECAY,
)
"""Settings that a resumed run may have otherwise too, and is told of: they decide on
the steps to come, by a schedule that is the new one's from its beginning.
"""
MAX_CHANGES = 20
"""Settings that differ: so many of them stand in the message."""
MAX_NAME_CHARS = 80
"""Characters of a setting's name in the message; a folder's file may hold any."""
MAX_VALUE_CHARS = 500
"""Characters of its value there."""
FILES = ("config.json", "metrics.jsonl", "journal.jsonl", "lock", "run_id")
"""What a run writes in its folder, and in place of what is there."""
FOLDERS = ("checkpoints", "episodes", "failed", "tensorboard", "wandb")
"""The folders in it that a run writes to, and deletes from."""
_OWN_LINKS = ("wandb",)
"""Those in which a library puts links of its own."""
_WRITING = ".writing"
"""Suffix of a checkpoint that is being written, or deleted: it is no checkpoint."""


def resumed_setting(folder: Path, name: str) -> Any:
    """Return a setting of the run in a folder that would be resumed; None if none is.

    Without a whole checkpoint a run begins anew. What is wrong with the folder,
    `Run.open` says.
    """
    if not whole_checkpoints(folder / "checkpoints"):
        return None
    try:
        text = read_whole(check_place(folder / "config.json")).decode("utf-8")
        return read_object(text).get(name)
    except (OSError, ValueError):
        return None


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
    # The one link among them: it is replaced, and never written through.
    best = folder / "best"
    if best.exists() and not best.is_symlink():
        raise DataError(f"{best}: no link, which a run puts there. Move it away.")


class Run:
    """A run's folder.

    `step` is how many steps were made. `journal` keeps the replies that agents
    gave since the last checkpoint, so that a run that was cut off asks nobody again.
    """

    journal: Journal
    changes: str
    """What a resumed run does otherwise from here on, in words."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.folder = config.out
        self._checkpoints = self.folder / "checkpoints"
        whole = whole_checkpoints(self._checkpoints)
        self.step = max(map(step_of, whole), default=0)
        self.changes = ""
        self._data = _data_in(self.folder / "config.json")
        """Number and hash of the tasks of each split."""
        self.initial_policy = policy_folder(config.policy)
        self._best: Path | None = None
        self._writing: Future[Any] | None = None
        """The checkpoint of `step`, while it is not yet in its place."""
        self._num_journal_bytes = 0
        """What of the journal that checkpoint makes superfluous."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, config: TrainConfig) -> Iterator["Run"]:
        """Open or start the run in `config.out`, and close it in the end.

        Rank 0 prepares the folder, and the other ranks read what is in it.

        Raises:
            CheckpointError: The folder holds a run with other settings, or cannot be
                written, or is not the same for all ranks.
        """
        run = cls(config)
        with contextlib.ExitStack() as stack:
            try:
                if rank() == 0:
                    # Before anything is written: the folder may be somebody else's.
                    check_folder(run.folder)
                    if run.step:
                        check_tree(run._at(run.step))
                    elif config.checkpoints.resume_from:
                        check_tree(Path(config.checkpoints.resume_from))
                    (run.folder / "episodes").mkdir(parents=True, exist_ok=True)
                    # Before anything is deleted: another process may be writing here.
                    stack.enter_context(locked(run.folder))
                    run._prepare()
                # Also waits until rank 0 is through: only then is the journal opened.
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
            # Apart from the above: an error of the training is none of the folder.
            try:
                yield run
            finally:
                run.settle(wait=True)

    def _prepare(self) -> None:
        """Compare the settings with those of an old run, or write those of a new one.

        What was left half made is deleted.
        """
        row = self._settings()
        text = json.dumps(row, indent=2) + "\n"
        path = self.folder / "config.json"
        self._checkpoints.mkdir(exist_ok=True)
        if self.step and path.is_file():
            # As they read from a file, where a tuple is a list.
            self._check_settings(path, json.loads(text))
            if self.changes:
                self._write_settings()
        for leftover in self._checkpoints.glob(f"*{_WRITING}"):
            shutil.rmtree(leftover)
        if not self.step:
            if path.is_file() and not _are_settings(path, json.loads(text)):
                # Replies of other agents to other questions.
                (self.folder / "journal.jsonl").unlink(missing_ok=True)
            self._write_settings()
        _own_copy(self.folder / "journal.jsonl")

    def _write_settings(self) -> None:
        """Write the settings, and which data they stand for once that is known."""
        row = self._settings() | {"data": self._data}
        write_anew(self.folder / "config.json", json.dumps(row, indent=2) + "\n")

    def check_data(self, source: TaskSource) -> None:
        """Note which tasks the run has, or check that they are still the same.

        Raises:
            CheckpointError: They have changed since the run began, or are not the same
                on all ranks.
        """
        data = {
            split: {
                "tasks": source.num_tasks(split),
                "sha256": tasks_digest(source, split),
            }
            for split in get_args(Split)
        }
        if any(other != data for other in gathered([data])):
            raise CheckpointError(
                f"{self.folder}: not all ranks have the same tasks. Put the data where"
                " all machines see it, or the same on each."
            )
        if self.step and not self._data:
            _log.warning(
                "%s did not note its tasks when it began: whether they are still the"
                " same is not known.",
                self.folder,
            )
        if self.step and self._data and self._data != data:
            raise CheckpointError(
                f"{self.folder}: the tasks have changed since this run began"
                f" ({_data_changes(self._data, data)}). Put the data back as it was, or"
                f" go on with the new in another --out: --policy {self._at(self.step)}/"
                "policy."
            )
        if rank() == 0 and self._data != data:
            self._data = data
            self._write_settings()

    def _settings(self) -> dict[str, Any]:
        """Return the settings that must stay the same, as `config.json` holds them."""
        settings = {
            name: value
            for name, value in self.config.to_dict().items()
            if name not in _MAY_CHANGE
        }
        start = self.config.checkpoints
        if start.resume_from:
            settings["checkpoints"] = {
                "resume_from": start.resume_from,
                "resume_optimizer": start.resume_optimizer,
            }
        # The pool's limits may change too: they decide how agents are asked, not what.
        settings["environment"].pop("pool", None)
        # Of how the update is computed, the rest changes only rounding.
        settings["compute"] = self.config.compute.lora_settings
        return {"format": FORMAT, **settings, "initial_policy": self.initial_policy}

    def _check_settings(self, path: Path, now: dict[str, Any]) -> None:
        """Compare settings with those that the run to be resumed was started with.

        What may change, and matters, is told in `changes`.

        Args:
            path: The file with the run's.
            now: The settings of this time.

        Raises:
            CheckpointError: They differ, or cannot be read.
        """
        try:
            before = _settings_in(path)
        except ValueError as error:
            raise CheckpointError(
                f"{path}: not the settings of a run ({error}). Put back the file that"
                " the run wrote, or use another --out."
            ) from error
        # The first format did not say which it was.
        version = before.get("format", 1)
        if version != FORMAT:
            raise CheckpointError(
                f"{self.folder} holds a run of another version, in format"
                f" {shown(version)}; this version reads {FORMAT}. Use"
                " the version that wrote it, or another --out."
            )
        # What the run's version could not be told yet was as it is by default.
        before = _with_defaults(before, now)
        changes = _changes(_decay_apart(before), _decay_apart(now))
        refused = [text for name, text in changes.items() if name not in _OF_SCHEDULES]
        if refused:
            raise CheckpointError(
                f"{self.folder} holds a run with other settings"
                f" ({'; '.join(refused[:MAX_CHANGES])}). Use another --out, or delete"
                " the folder."
            )
        if self.step > self.config.num_steps:
            raise CheckpointError(
                f"{self.folder} has made {self.step} steps, more than"
                f" num_steps={self.config.num_steps}. Use {self.step} or more, or"
                " another --out."
            )
        self.changes = "; ".join(changes.values())

    def policy_path(self) -> str:
        """Return where the weights to start from are.

        A run of adapters starts from the initial policy again, on which `restore` puts
        them: its checkpoints hold the two merged, where they would count twice.
        """
        if self.step and not self.config.compute.lora_rank:
            return str(self._at(self.step) / "policy")
        return self.initial_policy

    def check_template(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that a run that is resumed writes prompts as it did.

        Args:
            tokenizer: With the template that the run is to have.

        Raises:
            CheckpointError: The checkpoint's tokenizer cannot be read.
            PolicyError: The checkpoint's policy has another template.
        """
        if not self.step:
            return
        path = self._at(self.step) / "policy"
        with _unreadable_explained(path):
            saved = load_tokenizer(
                str(path), trust_remote_code=self.config.trust_remote_code
            )
        check_template(saved, str(tokenizer.chat_template))

    def queued_episodes(self) -> list[Episode]:
        """Return what was sampled before the last checkpoint for the steps after it."""
        path = self._at(self.step) / "queue.jsonl"
        return list(read_episodes(path)) if path.is_file() else []

    def competence(self) -> dict[str, tuple[float, int]]:
        """Return the running success that the last checkpoint has; {} if none.

        Raises:
            CheckpointError: It cannot be read.
        """
        path = self._at(self.step) / "competence.json"
        if not path.is_file():
            return {}
        with _unreadable_explained(path):
            row = read_object(path.read_text(encoding="utf-8"))
            return {name: (float(mean), int(num)) for name, (mean, num) in row.items()}

    def episodes_path(self, step: int) -> Path:
        """Return the file for the episodes of a step, of which there is none yet.

        Steps are counted from 1. A step that is made again leaves its episodes once.
        """
        path = self.folder / "episodes" / f"{STEP_PREFIX}{step:06d}.jsonl"
        path.unlink(missing_ok=True)
        return path

    def restore(self, model: PreTrainedModel) -> None:
        """Load the model's adapters when the run is resumed.

        Raises:
            CheckpointError: The checkpoint cannot be read, has another format, or has
                other adapters than the model.
        """
        if not self.step:
            return
        path = self._at(self.step) / "state.pt"
        with _unreadable_explained(path):
            state: dict[str, Any] = torch.load(
                path, map_location="cpu", weights_only=True
            )
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: written in format {state.get('format')}, this version reads"
                f" {FORMAT}. Use the version that wrote it, or start anew from the"
                f" weights: --policy {path.parent / 'policy'}."
            )
        try:
            load_adapter_state(model, state.get("adapter", {}))
            # What was exported in less than float32.
            if "weights" in state:
                model.load_state_dict(state["weights"])
        except (PolicyError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: {error} Delete {path.parent} to resume one checkpoint"
                " earlier."
            ) from error

    def restore_optimizer(
        self, model: PreTrainedModel, optimizer: torch.optim.Optimizer
    ) -> None:
        """Load the optimiser's state to go on with; the model may be sharded.

        That of a new one is another run's if it starts from a checkpoint of that.

        Raises:
            CheckpointError: The checkpoint cannot be read, or is of another optimiser
                or model.
        """
        start = self.config.checkpoints
        if self.step:
            path = self._at(self.step) / "optimizer"
        elif start.resume_from and start.resume_optimizer:
            path = Path(start.resume_from) / "optimizer"
            try:
                check_optimizer(path, model, self.config.optimizer.name)
            except ValueError as error:
                raise CheckpointError(
                    f"{path}: {error} Leave the state there, and begin with a new one:"
                    " --no-resume-optimizer."
                ) from error
        else:
            return
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
        competence: Mapping[str, tuple[float, int]] | None = None,
        keep_journal: bool = False,
    ) -> None:
        """Write the checkpoint after `step` steps; drop old ones and the journal.

        Several ranks write on while the next steps are made, see `settle`.

        Args:
            step: Steps that the weights have made.
            model: On every rank, of which each writes the optimiser's state of its own
                shards.
            tokenizer: Goes with the policy.
            optimizer: Its state is saved.
            queued: Episodes that were sampled for steps to come.
            competence: Running success after these.
            keep_journal: Whether the journal stays, since agents were already asked for
                steps to come.

        Raises:
            CheckpointError: It cannot be written; earlier checkpoints are untouched.
        """
        # One checkpoint at a time: the attributes below are those of one.
        self.settle(wait=True)
        scratch = self._at(step).with_suffix(_WRITING)
        with self._unwritable_explained(step):
            if rank() == 0:
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir()
                is_rounded = self.config.checkpoints.save_dtype == "bfloat16"
                policy = scratch / "policy"
                save_policy(model, tokenizer, policy, is_bfloat16=is_rounded)
                adapter = adapter_state(model)
                if adapter:
                    save_adapter(model, scratch / "adapter")
                state = {"format": FORMAT, "step": step, "adapter": adapter}
                if is_rounded and not adapter:
                    # To go on exactly; of adapters the weights below never change.
                    state["weights"] = model.state_dict()
                torch.save(state, scratch / "state.pt")
                if queued:
                    write_episodes(scratch / "queue.jsonl", queued, reveal=True)
                if competence:
                    text = json.dumps(competence, ensure_ascii=False)
                    (scratch / "competence.json").write_text(text, encoding="utf-8")
            # The others wait here until rank 0 has made the folder they write in.
            gathered([None])
            writing = save_optimizer(scratch / "optimizer", model, optimizer)
        self._writing = writing
        self.step = step
        self._num_journal_bytes = 0 if keep_journal else self.journal.size()
        self.settle()
        self.journal.forget()

    def settle(self, *, wait: bool = False) -> None:
        """Put the last checkpoint in its place if all ranks have written it.

        Args:
            wait: Wait until they have.

        Raises:
            CheckpointError: It could not be written; earlier checkpoints are untouched.
        """
        writing = self._writing
        if writing is None:
            return
        if not wait and not writing.done():
            return
        # First of all: what fails is not tried again when the run is closed.
        self._writing = None
        target = self._at(self.step)
        scratch = target.with_suffix(_WRITING)
        with self._unwritable_explained(self.step):
            # Raises what was raised where it was written.
            writing.result()
            if rank():
                return
            # Before the name: after a loss of power, a file system may have kept the
            # name and lost what the files hold.
            for path in scratch.rglob("*"):
                if path.is_file():
                    _sync(path)
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        # Only now: until here, a run that is cut off needs these replies again.
        if self._num_journal_bytes:
            self.journal.clear(self._num_journal_bytes)
        self._keep_best()

    @contextlib.contextmanager
    def _unwritable_explained(self, step: int) -> Iterator[None]:
        """Turn what writing raises into CheckpointError; delete what was written."""
        target = self._at(step)
        try:
            yield
        # Each library has a kind of its own for a full disk.
        except Exception as error:
            shutil.rmtree(target.with_suffix(_WRITING), ignore_errors=True)
            raise CheckpointError(
                f"{target}: the checkpoint cannot be written: {error}. Earlier"
                " checkpoints are whole; make room and start the same command again."
            ) from error

    def mark_best(self, step: int) -> None:
        """Let `best` in the run's folder be the policy after `step` steps.

        Its checkpoint is kept until another is better.
        """
        self.settle()
        self._best = self._at(step)
        if rank() == 0:
            self._keep_best()

    def _keep_best(self) -> None:
        """Link the best checkpoint if it is whole; delete all others but the newest."""
        if self._best and is_whole(self._best):
            # Relative, so that the folder can be moved.
            target = self._best.relative_to(self.folder) / "policy"
            link_anew(self.folder / "best", target)
        # The one before stays linked until the new best is whole.
        linked = (self.folder / "best").resolve().parent
        whole = whole_checkpoints(self._checkpoints)
        for old in whole[: -self.config.keep_checkpoints]:
            if old != self._best and old.resolve() != linked:
                # What is half deleted is never taken for whole.
                doomed = old.rename(old.with_suffix(_WRITING))
                shutil.rmtree(doomed)

    def _at(self, step: int) -> Path:
        """Return the place of the checkpoint after `step` steps."""
        return self._checkpoints / f"{STEP_PREFIX}{step:06d}"


def _decay_apart(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the decay of the rate beside the optimiser's others."""
    optimizer = settings.get("optimizer")
    if not isinstance(optimizer, dict):
        return settings
    others = {name: value for name, value in optimizer.items() if name != "decay"}
    return {**settings, "optimizer": others, _DECAY: optimizer.get("decay")}


def _are_settings(path: Path, settings: dict[str, Any]) -> bool:
    """Return whether a run's `config.json` holds these settings."""
    try:
        return _settings_in(path) == settings
    except ValueError:
        return False


def _settings_in(path: Path) -> dict[str, Any]:
    """Return the settings in a run's `config.json`, without what stands for the data.

    Raises:
        ValueError: It holds none.
    """
    settings = read_object(read_whole(path).decode("utf-8"))
    settings.pop("data", None)
    # An earlier version had the share alone.
    return with_aid(settings)


def _data_in(path: Path) -> dict[str, Any]:
    """Return what a run's `config.json` says of its data, if it says anything."""
    try:
        text = read_whole(check_place(path)).decode("utf-8")
        data = read_object(text).get("data")
    except (OSError, ValueError):
        # What is wrong with the file is told where its settings are compared.
        return {}
    return data if isinstance(data, dict) else {}


def _data_changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return in words which splits have other tasks than before."""
    words: list[str] = []
    for split, row in now.items():
        old = before.get(split)
        if old == row:
            continue
        num_before = old.get("tasks") if isinstance(old, dict) else None
        words.append(f"{split} had {shown(num_before)} tasks and has {row['tasks']}")
    return ", ".join(words) or "other splits"


def _with_defaults(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return a run's settings with those that its version did not have yet.

    They were as they are by default.

    Args:
        before: What the run wrote.
        now: What it would write; of nested settings, the names count.
    """
    defaults = json.loads(json.dumps(TrainConfig().to_dict()))
    filled = {name: defaults[name] for name in now if name in defaults} | before
    for name, values in now.items():
        own = filled.get(name)
        default = defaults.get(name)
        if isinstance(values, dict) and isinstance(own, dict) and default:
            added = {key: default[key] for key in values if key in default}
            filled[name] = added | own
    return filled


def _changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """Return what differs between two settings, in words, by name."""
    changes: dict[str, str] = {}
    for name in sorted({*before, *now}):
        old_value = before.get(name)
        new_value = now.get(name)
        if old_value != new_value:
            changes[name] = (
                f"{name[:MAX_NAME_CHARS]} was {shown(old_value, MAX_VALUE_CHARS)},"
                f" is {shown(new_value, MAX_VALUE_CHARS)}"
            )
    return changes


@contextlib.contextmanager
def _unreadable_explained(path: Path) -> Iterator[None]:
    """Turn what a truncated or foreign file raises into CheckpointError."""
    try:
        yield
    # torch and safetensors have many kinds of errors for it.
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read ({type(error).__name__}). Delete {path.parent} to"
            " resume one checkpoint earlier."
        ) from error


def _own_copy(path: Path) -> None:
    """Replace a file that has a second name elsewhere (a hard link) by a copy.

    A run appends to it, and what stands under the other name stays as it is.
    """
    if path.is_file() and path.stat().st_nlink > 1:
        write_anew(path, path.read_bytes())


def _sync(path: Path) -> None:
    """Wait until what a file holds is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
