"""What can be said of a command's settings before anything slow is imported.

A name that leads nowhere is told within a second or two. All else is checked by the
part that uses it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aipo_env import (
    DataError,
    FileSource,
    check_source_name,
    construct,
    named_options,
    parse_spec,
    source_spec,
)
from aipo_learner.settings.train import TrainConfig


def look_at_run(config: TrainConfig) -> None:
    """Look at what the settings of a run name.

    Raises:
        ConfigError, DataError: A file of tasks cannot be read, its first row is no
            task, or a file of demonstrations is not there.
    """
    if not config.source.is_stored:
        look_at_files([config.environment.source])
    demonstrations = config.source.demonstrations
    if demonstrations and not Path(demonstrations).is_file():
        raise DataError(
            f"{demonstrations}: no such file. Give a .jsonl file of demonstrations"
            " (docs/episodes.md)."
        )
    if config.evaluation.every and config.evaluation.environment:
        look_at_files([config.evaluation.environment])


def look_at_files(sources: Iterable[Any]) -> None:
    """Read the first row of each file of tasks among specs of sources.

    Raises:
        ConfigError, DataError: It cannot be read, or an option does not fit.
    """
    for source in sources:
        if not isinstance(source, str | Mapping):
            continue
        check_source_name(source)
        kind, options = parse_spec(source_spec(source), "task")
        members: Any = options.get("sources")
        if kind == "mix" and isinstance(members, Mapping | list):
            look_at_files(members)
        elif kind == "file":
            _look_at_file(options)


def _look_at_file(options: Mapping[str, Any]) -> None:
    """Read the first row of a file of tasks."""
    named = named_options(FileSource, dict(options), "task: 'file'")
    construct(FileSource, {**named, "limit": 1}, "task 'file'")
