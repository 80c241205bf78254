"""Runs `aipo train` again and again in processes of its own, each of which gets a
signal at a chosen moment.

One order per line of standard input, as JSON: the `config`; the `moment`, one of
MOMENTS; which of them (`nth`, from 0); `delay_s` after its beginning; the `signal`.
Answers with the exit code, negative for a signal. Everything is imported once:
processes are forked before any of them has computed.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aipo_learner.cli  # everything that a run imports
import aipo_learner.evaluation.scheduled
import aipo_learner.rollout.sampled
import aipo_learner.run.folder
import aipo_learner.training
from aipo_env.cli import main

MOMENTS = {
    "rollouts": (aipo_learner.rollout.sampled, "play_wave"),
    "update": (aipo_learner.training, "update"),
    "save": (aipo_learner.run.folder, "save_policy"),
    "commit": (aipo_learner.run.folder, "_sync"),
    "sync": (aipo_learner.training, "sync_weights"),
    "evaluation": (aipo_learner.evaluation.scheduled, "evaluate"),
}


def announce(moment: str, nth: int, write: int) -> None:
    """Write a byte when the moment begins."""
    owner, name = MOMENTS[moment]
    real: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1_000_000))

    def announced(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == nth:
            os.write(write, b"!")
        return real(*args, **kwargs)

    setattr(owner, name, announced)


def run(order: dict[str, Any]) -> int:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        path = Path(order["config"]["out"]).with_suffix(".json")
        path.write_text(json.dumps(order["config"]))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if order["moment"]:
            announce(order["moment"], order["nth"], write)
        os._exit(main(["train", "--config", str(path)]))
    os.close(write)
    if os.read(read, 1):  # nothing where the run ended before
        time.sleep(order["delay_s"])
        os.kill(pid, getattr(signal, order["signal"]))
    os.close(read)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


for line in sys.stdin:
    print(run(json.loads(line)), flush=True)
