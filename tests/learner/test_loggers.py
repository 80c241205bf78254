"""Where metrics go beside metrics.jsonl."""

import logging
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aipo_env import CheckpointError, ConfigError, DataError
from aipo_learner.run.loggers import Logger, log_to, open_loggers


def test_tensorboard_and_a_resumed_run(tmp_path: Path):
    for num_made, rows in ((0, [1.0, 2.0, 3.0]), (2, [4.0])):
        loggers = open_loggers("tensorboard", tmp_path, {}, num_made)
        for step, value in enumerate(rows, num_made + 1):
            log_to(loggers, {"reward": value}, step)
        for logger in loggers.values():
            logger.close()
        # Files are read in the order of their names, which have whole seconds.
        time.sleep(1.1)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("reward")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 4.0),
    ]


@pytest.mark.parametrize(
    "content", [b"\xff", b"", b"a b", b"x" * 65, b"../up", b"a\nb"]
)
def test_what_is_no_name_of_a_run_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "run_id").write_bytes(content)
    with pytest.raises(CheckpointError, match="run_id: b'.*' is no name of a run"):
        open_loggers("", tmp_path, {}, 0)


def test_a_run_keeps_its_name(tmp_path: Path):
    open_loggers("", tmp_path, {}, 0)
    name = (tmp_path / "run_id").read_text()
    open_loggers("", tmp_path, {}, 0)
    assert (tmp_path / "run_id").read_text() == name
    (tmp_path / "run_id").unlink()
    (tmp_path / "run_id").symlink_to(tmp_path / "new")
    with pytest.raises(DataError, match="run_id: a link, which is not followed"):
        open_loggers("", tmp_path, {}, 0)
    assert not (tmp_path / "new").exists()


def test_none_of_them(tmp_path: Path):
    assert open_loggers("", tmp_path, {}, 0) == {}


def test_an_unknown_one(tmp_path: Path):
    with pytest.raises(
        ConfigError, match="loggers: there is no 'wandbb'.*Did you mean 'wandb'"
    ):
        open_loggers("tensorboard,wandbb", tmp_path, {}, 0)


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_one_that_is_not_installed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(
        ConfigError,
        match=(
            rf"loggers: {name} does not start: .*{name}.* Install it .pip install"
            rf" {name}."
        ),
    ):
        open_loggers(f" {name}", tmp_path, {}, 0)


def test_one_that_fails_is_left_out(caplog: pytest.LogCaptureFixture):
    def fail(row: dict[str, float], step: int) -> None:
        raise OSError(28, "No space left on device")

    seen: list[tuple[dict[str, float], int]] = []
    loggers = {
        "bad": Logger(fail, lambda: None),
        "good": Logger(lambda row, step: seen.append((row, step)), lambda: None),
    }
    with caplog.at_level(logging.WARNING, "aipo_learner"):
        log_to(loggers, {"a": 1.0}, 0)
        log_to(loggers, {"a": 2.0}, 1)
    assert seen == [({"a": 1.0}, 0), ({"a": 2.0}, 1)]
    assert caplog.messages == [
        "the logger bad is left out from here on: OSError: [Errno 28] No space left on"
        " device"
    ]
