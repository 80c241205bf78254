"""Where metrics go beside `metrics.jsonl`: TensorBoard, Weights & Biases, trackio,
MLflow.
"""

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
MAX_ID_BYTES = 64
_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Logger:
    """An open logger: `log(row, step)` takes metrics of a step, `close()` writes what
    is still to be written.
    """

    log: Callable[[dict[str, float], int], Any]
    close: Callable[[], Any]


@dataclass(frozen=True)
class _Run:
    """What a logger is told of a run; `name` and `id` stay the same when it is
    resumed.
    """

    folder: Path
    id: str
    settings: dict[str, Any]
    first_step: int

    @property
    def name(self) -> str:
        return f"{self.folder.name}-{self.id[:4]}"


def open_loggers(
    names: str, folder: Path, settings: Mapping[str, Any], first_step: int
) -> dict[str, Logger]:
    """Open the loggers that `names` lists, as in "tensorboard,wandb"; "" is none.

    A resumed run goes on in what it logged to before, known by `folder/run_id`.
    Addresses, modes and keys are those of each library's own environment variables
    (WANDB_MODE=offline, MLFLOW_TRACKING_URI, …).

    Raises:
        ConfigError: A name is unknown, or its library is not installed.
        CheckpointError: `run_id` holds something else.
    """
    run = _Run(folder, _run_id(folder / "run_id"), dict(settings), first_step)
    loggers: dict[str, Logger] = {}
    for name in filter(None, names.replace(" ", "").split(",")):
        opened = choose(_LOGGERS, name, "loggers")
        try:
            loggers[name] = opened(run)
        except (
            Exception
        ) as error:  # each library has its own for a missing key or server
            mend = (
                f"Install it (pip install {name})"
                if isinstance(error, ImportError)
                else "Mend it"
            )
            raise ConfigError(
                f"loggers: {name} does not start: {error}. {mend}, or leave it out of"
                f" --loggers {names}."
            ) from error
    return loggers


def _run_id(path: Path) -> str:
    """Return the name under which a run logs; one that has none gets it.

    Raises:
        CheckpointError: The file holds something else.
    """
    if not check_place(path).is_file():
        write_anew(path, uuid.uuid4().hex)
    with path.open("rb") as file:
        content = file.read(MAX_ID_BYTES + 1).strip()
    if not _ID.fullmatch(content):
        raise CheckpointError(
            f"{path}: {shown(content)} is no name of a run: up to {MAX_ID_BYTES}"
            " letters, digits, '-' and '_'. Delete the file; the run is then logged as"
            " a new one."
        )
    return content.decode("ascii")


def log_to(loggers: dict[str, Logger], row: Mapping[str, float], step: int) -> None:
    """Give a row to every logger. One that fails is left out from then on, and the run
    goes on.
    """
    for name, logger in list(loggers.items()):
        try:
            logger.log(dict(row), step)
        except (
            Exception
        ) as error:  # each library has its own for a full disk or a lost server
            _log.warning(
                "the logger %s is left out from here on: %s: %s",
                name,
                type(error).__name__,
                error,
            )
            del loggers[name]


def _tensorboard(run: _Run) -> Logger:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.first_step)

    def log(row: dict[str, float], step: int) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, step)

    return Logger(log, writer.close)


def _wandb(run: _Run) -> Logger:
    import wandb

    opened = wandb.init(
        project=_PROJECT,
        name=run.name,
        id=run.id,
        dir=run.folder,
        resume="allow",
        config=run.settings,
    )
    return Logger(lambda row, step: opened.log(row, step=step), opened.finish)


def _trackio(run: _Run) -> Logger:
    import trackio

    opened = trackio.init(
        project=_PROJECT, name=run.name, resume="allow", config=run.settings
    )
    return Logger(lambda row, step: opened.log(row, step=step), opened.finish)


def _mlflow(run: _Run) -> Logger:
    import mlflow

    client = mlflow.MlflowClient()
    found = mlflow.set_experiment(_PROJECT)
    same = client.search_runs(
        [found.experiment_id], f"attributes.run_name = '{run.name}'"
    )
    opened = (
        same[0] if same else client.create_run(found.experiment_id, run_name=run.name)
    )
    run_id = opened.info.run_id

    def log(row: dict[str, float], step: int) -> None:
        for name, value in row.items():
            client.log_metric(run_id, name, value, step=step)

    return Logger(log, lambda: client.set_terminated(run_id))


_LOGGERS = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
}
