"""Other places for metrics: TensorBoard, Weights & Biases, trackio, MLflow."""

import logging
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo_env import (
    CheckpointError,
    ConfigError,
    check_place,
    choose,
    shown,
    write_anew,
)

_log = logging.getLogger("aipo_learner")
_PROJECT = "aipo"
"""Under this name the libraries list our runs."""
MAX_ID_BYTES = 64
"""Longest id of a run; Weights & Biases takes no longer ones."""
_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
"""It becomes part of addresses and paths of others."""
_NUM_NAME_CHARS = 4
"""So much of a run's id stands in its name, to tell runs of one folder's name apart."""


@dataclass(frozen=True)
class Logger:
    """An open logger.

    Args:
        log: Takes the metrics of a step, and its number.
        close: Writes what is still to be written.
    """

    log: Callable[[dict[str, float], int], Any]
    close: Callable[[], Any]


@dataclass(frozen=True)
class _LoggedRun:
    """What a logger is told of a run.

    Its `name` and its `id` stay the same when it is resumed.
    """

    folder: Path
    id: str
    settings: dict[str, Any]
    num_made: int

    @property
    def name(self) -> str:
        """The name that readers see."""
        return f"{self.folder.name}-{self.id[:_NUM_NAME_CHARS]}"


def open_loggers(
    names: str, folder: Path, settings: Mapping[str, Any], num_made: int
) -> dict[str, Logger]:
    """Open the loggers that `names` lists, as in "tensorboard,wandb"; "" is none.

    A resumed run goes on in what it logged to before, known by `folder/run_id`.
    Addresses, modes and keys are those of each library's own environment variables
    (WANDB_MODE=offline, MLFLOW_TRACKING_URI, …).

    Raises:
        ConfigError: A name is unknown, or its library is not installed.
        CheckpointError: `run_id` holds something else.
    """
    run = _LoggedRun(folder, _run_id(folder / "run_id"), dict(settings), num_made)
    loggers: dict[str, Logger] = {}
    for name in names.replace(" ", "").split(","):
        # "" has one part too, and a list may end with a comma.
        if not name:
            continue
        open_logger = choose(_LOGGERS, name, "loggers")
        try:
            loggers[name] = open_logger(run)
        # Each library has errors of its own for a missing key or server.
        except Exception as error:
            remedy = "Mend it"
            if isinstance(error, ImportError):
                remedy = f"Install it (pip install {name})"
            raise ConfigError(
                f"loggers: {name} does not start: {error}. {remedy}, or leave it out of"
                f" --loggers {names}."
            ) from error
    return loggers


def _run_id(path: Path) -> str:
    """Return the id under which a run logs; one that has none gets it.

    Raises:
        CheckpointError: The file holds something else.
    """
    if not check_place(path).is_file():
        write_anew(path, uuid.uuid4().hex)
    with path.open("rb") as file:
        # One more than is allowed, so that a longer one is seen to be longer.
        content = file.read(MAX_ID_BYTES + 1).strip()
    if not _ID.fullmatch(content):
        raise CheckpointError(
            f"{path}: {shown(content)} is no name of a run: up to {MAX_ID_BYTES}"
            " letters, digits, '-' and '_'. Delete the file; the run is then logged as"
            " a new one."
        )
    return content.decode("ascii")


def log_to(loggers: dict[str, Logger], row: Mapping[str, float], step: int) -> None:
    """Give a row to every logger; drop those that fail.

    Hours of training are not to end with a lost server of metrics: `metrics.jsonl` has
    them all.
    """
    # A copy of the list, since those that fail leave the dictionary.
    for name, logger in list(loggers.items()):
        try:
            logger.log(dict(row), step)
        # Each library has errors of its own for a full disk or a lost server.
        except Exception as error:
            _log.warning(
                "the logger %s is left out from here on: %s: %s",
                name,
                type(error).__name__,
                error,
            )
            del loggers[name]


def _tensorboard(run: _LoggedRun) -> Logger:
    from torch.utils.tensorboard import SummaryWriter

    # Of a run that was cut off, steps that are made again are dropped.
    first_step = run.num_made + 1
    writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=first_step)

    def log(row: dict[str, float], step: int) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, step)

    return Logger(log, writer.close)


def _wandb(run: _LoggedRun) -> Logger:
    import wandb

    session = wandb.init(
        project=_PROJECT,
        name=run.name,
        id=run.id,
        dir=run.folder,
        resume="allow",
        config=run.settings,
    )

    def log(row: dict[str, float], step: int) -> None:
        session.log(row, step=step)

    return Logger(log, session.finish)


def _trackio(run: _LoggedRun) -> Logger:
    import trackio

    # It knows a run by its name alone.
    session = trackio.init(
        project=_PROJECT, name=run.name, resume="allow", config=run.settings
    )

    def log(row: dict[str, float], step: int) -> None:
        session.log(row, step=step)

    return Logger(log, session.finish)


def _mlflow(run: _LoggedRun) -> Logger:
    import mlflow

    client = mlflow.MlflowClient()
    experiment_id = mlflow.set_experiment(_PROJECT).experiment_id
    # MLflow gives ids itself, so a run that is resumed is looked up by its name.
    earlier = client.search_runs([experiment_id], f"attributes.run_name = '{run.name}'")
    if earlier:
        entry = earlier[0]
    else:
        entry = client.create_run(experiment_id, run_name=run.name)
    run_id = entry.info.run_id

    def log(row: dict[str, float], step: int) -> None:
        for name, value in row.items():
            client.log_metric(run_id, name, value, step=step)

    def close() -> None:
        client.set_terminated(run_id)

    return Logger(log, close)


_LOGGERS = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
}
