"""The command `aipo verify`."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, TextIO

from tyro.conf import Positional

from aipo_env.errors import ConfigError
from aipo_env.event_loop import run_sync
from aipo_env.files import bounded_lines, is_same_file, open_output
from aipo_env.grading import Grader, OwnGrader
from aipo_env.rollout.environment import Environment
from aipo_env.rollout.scenario import build_scenario


def verify(
    file: Positional[Path],
    *,
    kind: Literal["math", "choice", "code"] | None = None,
    environment: Environment = Environment(),  # noqa: B008
    out: Path | None = None,
    sandbox: str = "auto",
) -> None:
    """Grade stored answers: math, choices, programs, or by a verifier of your own.

    One JSON object per line; a verdict is written for each, in order. With --kind lines
    are {gold, pred, form} (form "answer" or "response"), {gold, options or n_options,
    response}, {task, code}, or {problem, code} with a row of LiveCodeBench, HumanEval
    or MBPP as the dataset has it; with an environment or a verifier {gold, response} or
    {task, response}, where task is an object with fields of a task, or the index of a
    task of the environment. Recorded episodes do for both. A line that cannot be graded
    gets the status "error"; the rest go on.

    The last line counts them: on standard output, or on standard error where the
    verdicts go there. A line may say what is "expected" of it, true, false or a status;
    which are right and should not be, or the other way round, is counted too.

    Args:
        file: The JSON lines.
        kind: What the answers are.
        environment: Whose verifier grades them; --environment ID, --reward
            module:function for short.
        out: Where the verdicts go; by default to standard output.
        sandbox: Where programs are run: "auto", "process", "bubblewrap",
            "docker:IMAGE".
    """
    if out and is_same_file(out, file):
        raise ConfigError(
            f"verify: the verdicts would overwrite {file}; name another file with"
            " --out."
        )
    grader: Grader | OwnGrader
    if environment != Environment():
        grader = OwnGrader(build_scenario(environment, "none"))
    elif kind is not None:
        grader = Grader(kind, sandbox)
    else:
        raise ConfigError(
            "verify: name what the answers are, --kind math, choice or code, or whose "
            "verifier grades them, --environment ID or --reward module:function."
        )
    # In this order: a file that cannot be read costs no verdicts of an earlier run.
    with file.open("rb") as lines, _opened(out) as target:
        verdicts = grader.grade(bounded_lines(lines))
        run_sync(_write(verdicts, target))
    print(grader.tally, file=sys.stdout if out else sys.stderr)


def _opened(out: Path | None) -> AbstractContextManager[TextIO]:
    """Open where the verdicts go; standard output stays open for others."""
    if out is None:
        return nullcontext(sys.stdout)
    return open_output(out)


async def _write(verdicts: AsyncIterator[dict[str, Any]], out: TextIO) -> None:
    async for verdict in verdicts:
        out.write(json.dumps(verdict) + "\n")
