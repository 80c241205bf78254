"""What the run behind a policy trained on, so that none of it is called held out.

Files are looked at. Data sets that others publish are known by their splits, and are
not fetched to look.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aipo_env import (
    ConfigError,
    DataError,
    Environment,
    TaskSource,
    build_scenario,
    check_place,
    parse_spec,
    source_spec,
    tasks_digest,
    trained_on,
    without_contaminated,
)
from aipo_learner.evaluation.scheduled import check_held_out
from aipo_learner.run.places import run_of
from aipo_learner.settings.train import read_config_file


def check_not_trained_on(policy: str, evaluation: TaskSource, name: str) -> None:
    """Check that a policy's run did not train on the test tasks of a source.

    Of a policy that is in no run's folder, nobody knows.

    Args:
        policy: As it was named.
        evaluation: What is to be measured.
        name: What messages call it.

    Raises:
        DataError: It did; or its file has changed since, so that nobody can tell.
    """
    run = run_of(Path(policy))
    if run is None:
        return
    row = read_config_file(check_place(run / "config.json"))
    spec = Environment.of(row.get("environment", {})).source
    files = list(_files(spec))
    held_out = [name for name in row.get("held_out", ()) if list(_files(name))]
    for file in files:
        try:
            scenario = build_scenario(Environment(source=file), "none")
            training = without_contaminated(scenario.source, held_out)
        except (ConfigError, DataError):
            # It is no longer there. Whoever measures on it is told by the reading.
            continue
        is_all = len(files) == 1 and file == spec
        if is_all and _has_changed(row, training):
            _check_strange(training, evaluation, name, run)
        check_held_out(training, evaluation, name)


def _has_changed(row: Mapping[str, Any], training: TaskSource) -> bool:
    """Return whether a run's tasks are others than when it began."""
    data = row.get("data")
    noted = data.get("train") if isinstance(data, Mapping) else None
    if not isinstance(noted, Mapping):
        return False
    return noted.get("sha256") != tasks_digest(training, "train")


def _check_strange(
    training: TaskSource, evaluation: TaskSource, name: str, run: Path
) -> None:
    """Raise DataError where tasks are of a file that has changed since the training.

    A further row may have moved another one from what is trained on to what is held
    out.
    """
    shared = trained_on(training, evaluation, splits=("train", "test"))
    if shared:
        raise DataError(
            f"{name!r} is of the file that {run} was trained on, and the file has"
            " changed since: which of its rows were trained on cannot be told. Put it"
            " back as it was, or measure on another one."
        )


def _files(spec: Any) -> Iterator[Any]:
    """Yield the files of tasks among what a source is made of."""
    if not isinstance(spec, str | Mapping):
        return
    kind, options = parse_spec(source_spec(spec), "task")
    members = options.get("sources")
    if kind == "file":
        yield spec
    elif kind == "mix" and isinstance(members, Mapping | list):
        for member in members:
            # One within another would have to be followed to any depth.
            if isinstance(member, str | Mapping):
                inner, _ = parse_spec(source_spec(member), "task")
                if inner == "file":
                    yield member
