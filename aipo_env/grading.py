"""Grades stored answers, one JSON object per line: what `aipo verify` does."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from typing import Any

from aipo_env.episode import Episode
from aipo_env.errors import DataError, SandboxUnavailable
from aipo_env.records import StopReason, Task, Verdict
from aipo_env.sandboxes.self_test import open_sandbox
from aipo_env.tasks.rows import read_json
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.by_kind import ByKind
from aipo_env.verifiers.choice import LETTERS
from aipo_env.verifiers.math_equiv import MathVerifier
from aipo_env.verifiers.unit_tests import CaseResult, CodeVerifier

MAX_SHOWN_BYTES = 2000
"""A test's outputs are cut to as much."""
_AT_ONCE = 32
FORMS = ("answer", "response")
_WITH_ANSWER = (StopReason.COMPLETED, StopReason.NO_ANSWER, StopReason.VERIFIER_ERROR)


class Grader:
    """Grades lines of one kind: "math", "choice" or "code"; recorded episodes of any kind.

    The forms are `{gold, pred, form}`, `{gold, options | n_options, response}`, `{task, code}`, and what
    `write_episodes` writes; other fields are ignored.
    """

    def __init__(self, kind: str, sandbox: str = "auto") -> None:
        self._kind, self._sandbox, self._any = kind, sandbox, ByKind(sandbox)

    async def grade(self, lines: Iterable[bytes]) -> AsyncIterator[dict[str, Any]]:
        """Yield a verdict per line, in order; of a line that cannot be graded, an "error" with its number.

        Raises:
            SandboxUnavailable: Programs are to be run, and no sandbox holds on this machine.
        """
        numbered = (
            (number, line) for number, line in enumerate(lines, 1) if line.strip()
        )
        while batch := list(itertools.islice(numbered, _AT_ONCE)):
            for verdict in await asyncio.gather(*itertools.starmap(self._line, batch)):
                yield verdict

    async def _line(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = read_json(line)
            if not isinstance(row, dict):
                raise DataError(f"{row!r:.80} is no JSON object")
            return await self._row(row)
        except SandboxUnavailable:
            raise
        except KeyError as error:
            reason = f"field {error} is missing"
        except Exception as error:
            reason = str(error)
        return asdict(judged("error", reason=f"line {number}: {reason}")) | {
            "line": number
        }

    async def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        if "turns" in row and "verdict" in row:
            return asdict(await self._episode(Episode.from_dict(row)))
        if self._kind != "code":
            return asdict(await self._bare_row(row))
        tests = {
            **row["task"],
            "hidden": row["task"].get("hidden") or row["task"]["tests"],
        }
        task = Task(
            id=str(tests.get("id", "task")),
            prompt="-",
            answer="",
            kind="code",
            tests=tests,  # type: ignore[arg-type]
        )
        verifier = CodeVerifier(await open_sandbox(self._sandbox))
        verdict, cases = await verifier.verify_program(task, _text(row, "code"))
        return {**asdict(verdict), "tests": list(map(_case, cases))}

    async def _episode(self, episode: Episode) -> Verdict:
        if episode.task.withheld and episode.task.answer == episode.task.withheld:
            raise DataError(
                f"the gold of {episode.task.id!r} was withheld when the episode was stored"
            )
        if episode.stop_reason not in _WITH_ANSWER or not episode.turns:
            reason = f"the episode ended before an answer: {episode.stop_reason.value}"
            return judged("no_answer", reason=reason)
        return await self._any.verify(episode.task, episode.turns[-1].completion)

    async def _bare_row(self, row: dict[str, Any]) -> Verdict:
        gold = _text(row, "gold")
        if self._kind == "choice":
            options = tuple(
                row["options"] if "options" in row else LETTERS[: row["n_options"]]
            )
            task = Task(
                id="line", prompt="-", answer=gold, kind="choice", choices=options
            )
            return await self._any.verify(task, _text(row, "response"))
        if (form := row.get("form", "response")) not in FORMS:
            raise DataError(f"field 'form' is {form!r:.80}; use {' or '.join(FORMS)}")
        if form == "answer":
            return await MathVerifier().grade(gold, _text(row, "pred"))
        return await self._any.verify(
            Task(id="line", prompt="-", answer=gold), _text(row, "pred")
        )


def _text(row: dict[str, Any], field: str) -> str:
    if not isinstance(row[field], str):
        raise DataError(f"field {field!r} must be text, got {row[field]!r:.80}")
    return str(row[field])


def _case(case: CaseResult) -> dict[str, Any]:
    outputs = {"stdout": case.run.stdout, "stderr": case.run.stderr}
    shown = {
        name: output[:MAX_SHOWN_BYTES].decode("utf-8", "replace")
        for name, output in outputs.items()
    }
    return {
        "status": case.status,
        "reason": case.reason,
        **shown,
        "seconds": round(case.run.seconds, 4),
    }
