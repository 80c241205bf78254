"""Grades stored answers, one JSON object per line: what `aipo verify` does."""

import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, get_args

from aipo_env.episode import Episode
from aipo_env.errors import (
    MAX_SHOWN,
    ConfigError,
    DataError,
    is_hopeless,
    message_of,
    shown,
)
from aipo_env.records import (
    Author,
    Message,
    Span,
    Split,
    StopReason,
    Task,
    Verdict,
    VerdictStatus,
)
from aipo_env.registry import construct
from aipo_env.rollout.scenario import Scenario
from aipo_env.sandboxes.self_test import open_sandbox
from aipo_env.tasks.code_problems import read_code_problem
from aipo_env.tasks.rows import Unusable, read_line
from aipo_env.threads import Places, all_of, in_thread
from aipo_env.verifiers.base import EpisodeView, judged, run_verifier
from aipo_env.verifiers.by_kind import ByKind
from aipo_env.verifiers.choice_golds import gold_letter
from aipo_env.verifiers.choice_options import LETTERS
from aipo_env.verifiers.math.grade import is_empty
from aipo_env.verifiers.math.verifier import MathVerifier
from aipo_env.verifiers.unit_tests import CaseResult, CodeVerifier

_AT_ONCE = 32
"""Lines that are graded side by side; their verdicts are written in order."""
_SECONDS_PLACES = 4
"""Decimals of the seconds that a test took."""
ANSWER_FORMS = ("answer", "response")
"""What a line's `pred` is: a bare answer, or a reply that states one somewhere."""
# What a verifier failed to judge may be judged now.
_WITH_ANSWER = (StopReason.COMPLETED, StopReason.NO_ANSWER, StopReason.VERIFIER_ERROR)


@dataclass
class Tally:
    """How many lines were graded how.

    `false_positives` and `false_negatives` are, of the `num_labelled` lines that say
    what is expected, those that count as right and should not, and the other way round.
    Of statuses no more is compared than whether they are right; a line that ends in an
    error is labelled only if that is expected.
    """

    right: int = 0
    wrong: int = 0
    no_answer: int = 0
    errors: int = 0
    num_labelled: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def count(self, verdict: Mapping[str, Any], expected: bool | str | None) -> None:
        """Count a verdict, by its fields, and whether it is the one expected."""
        is_right = verdict["correct"]
        if is_right is None:
            self.errors += 1
            self.num_labelled += expected == verdict["status"]
            return
        if is_right:
            self.right += 1
        elif verdict["status"] == "no_answer":
            self.no_answer += 1
        else:
            self.wrong += 1
        if expected is not None:
            should_be_right = expected in (True, "correct")
            self.num_labelled += 1
            self.false_positives += is_right and not should_be_right
            self.false_negatives += should_be_right and not is_right

    def __str__(self) -> str:
        num_lines = self.right + self.wrong + self.no_answer + self.errors
        counts = (
            f"lines {num_lines}: right {self.right}, wrong {self.wrong}, no answer"
            f" {self.no_answer}, errors {self.errors}"
        )
        if not self.num_labelled:
            return counts
        return (
            f"{counts}; with 'expected' {self.num_labelled}: false positives"
            f" {self.false_positives}, false negatives {self.false_negatives}"
        )


class _Lines:
    """Grades lines of JSON, some at a time; what one line is, `_row` knows."""

    judges_by_kind = True
    """Whether a task's kind, which a line may say wrongly, chooses its verifier."""

    def __init__(self) -> None:
        self.tally = Tally()
        """Of the lines graded so far."""

    async def grade(self, lines: Iterable[bytes]) -> AsyncIterator[dict[str, Any]]:
        """Yield a verdict per line that is not empty, in order.

        Of one that cannot be graded it is an "error" with its number.

        Raises:
            SandboxUnavailable: Programs are to be run, and no sandbox holds on this
                machine.
        """
        numbered = (item for item in enumerate(lines, 1) if item[1].strip())
        for batch in _batches(numbered, _AT_ONCE):
            verdicts = [self._line(number, line) for number, line in batch]
            for verdict in await all_of(verdicts):
                yield verdict

    async def _line(self, number: int, line: bytes) -> dict[str, Any]:
        expected = None
        try:
            row = read_line(line)
            if not isinstance(row, dict):
                raise DataError(f"{shown(row)} is no JSON object")
            expected = _expected(row)
            verdict = await self._row(row)
            self.tally.count(verdict, expected)
            return verdict
        except KeyError as error:
            reason = f"field {shown(error.args[0])} is missing"
        except Exception as error:
            # What can never succeed ends it all; but a setting may be wrong for this
            # line alone: what the file says is data.
            is_of_line = isinstance(error, ConfigError) and self.judges_by_kind
            if is_hopeless(error) and not is_of_line:
                raise
            reason = message_of(error)
        failure = judged("error", reason=f"line {number}: {reason}")
        verdict = {**asdict(failure), "line": number}
        self.tally.count(verdict, expected)
        return verdict

    async def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the verdict on a line.

        Raises:
            KeyError, DataError: A field is missing, or cannot be used.
        """
        raise NotImplementedError


def _expected(row: dict[str, Any]) -> bool | str | None:
    """Return what a line says of its verdict: right or not, a status, or nothing.

    Raises:
        DataError: It says neither a truth value nor the status of a verdict.
    """
    expected = row.get("expected")
    if expected is None or isinstance(expected, bool):
        return expected
    if expected not in get_args(VerdictStatus):
        raise DataError(
            f"field 'expected' is {shown(expected)}; use true, false, or the status of"
            ' the verdict, as "wrong"'
        )
    return str(expected)


def _batches(
    items: Iterator[tuple[int, bytes]], size: int
) -> Iterator[list[tuple[int, bytes]]]:
    """Yield lists of so many items, each read when its turn comes."""
    batch = list(itertools.islice(items, size))
    while batch:
        yield batch
        batch = list(itertools.islice(items, size))


class Grader(_Lines):
    """Grades lines of one kind, "math", "choice" or "code"; episodes of any kind.

    The forms are `{gold, pred, form}`, `{gold, options | n_options, response}`, `{task,
    code}`, `{problem, code}` with a row of a dataset that `read_code_problem` knows,
    and what `write_episodes` writes; other fields are ignored.
    """

    def __init__(self, kind: str, sandbox: str = "auto") -> None:
        super().__init__()
        self._kind = kind
        self._sandbox = sandbox
        self._unpacking = Places(1)
        self._verifier = ByKind(sandbox)

    async def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        if _is_episode(row):
            verdict = await self._episode(Episode.from_dict(row))
            return asdict(verdict)
        if self._kind == "code":
            return await self._program(row)
        if self._kind == "choice":
            return asdict(await self._choice(row))
        return asdict(await self._math(row))

    async def _program(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the verdict on a bare program, with what each test came to."""
        # Small rows may unpack to large tests: one at a time, and beside the others.
        async with self._unpacking.one():
            task = await in_thread(partial(_code_task, row), "aipo-read-task")
        verifier = CodeVerifier(await open_sandbox(self._sandbox))
        verdict, cases = await verifier.verify_program(task, _text(row, "code"))
        return {**asdict(verdict), "tests": list(map(_case, cases))}

    async def _episode(self, episode: Episode) -> Verdict:
        verdict = _unanswered(episode)
        if verdict is not None:
            return verdict
        answer = episode.turns[-1].completion
        return await self._verifier.verify(episode.task, answer)

    async def _choice(self, row: dict[str, Any]) -> Verdict:
        gold = _text(row, "gold")
        choices = _options(row)
        try:
            letter = gold_letter(gold, choices)
        except ValueError as error:
            raise DataError(f"field 'gold': {error}") from error
        task = Task(
            id="line", prompt="-", answer=letter, kind="choice", choices=choices
        )
        return await self._verifier.verify(task, _text(row, "response"))

    async def _math(self, row: dict[str, Any]) -> Verdict:
        gold = _text(row, "gold")
        if is_empty(gold):
            raise DataError(
                f"field 'gold' is {shown(gold)}, which is empty: nothing equals it"
            )
        form = row.get("form", "response")
        if form not in ANSWER_FORMS:
            raise DataError(
                f"field 'form' is {shown(form)}; use {' or '.join(ANSWER_FORMS)}"
            )
        if form == "answer":
            return await MathVerifier().grade(gold, _text(row, "pred"))
        task = Task(id="line", prompt="-", answer=gold)
        return await self._verifier.verify(task, _text(row, "pred"))


class OwnGrader(_Lines):
    """Grades lines by the verifier of a scenario.

    The forms are `{gold, response}`, `{task, response}`, where `task` is an object with
    fields of `Task` or the index of a task of the scenario's source, and what
    `write_episodes` writes. A verifier that wants the episode is shown a line's text as
    its only turn.
    """

    def __init__(self, scenario: Scenario) -> None:
        super().__init__()
        self._scenario = scenario
        self.judges_by_kind = isinstance(scenario.verifier, ByKind)

    async def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        if _is_episode(row):
            verdict = await self._episode(Episode.from_dict(row))
        else:
            task = self._task(row)
            verdict = await self._judge(task, _text(row, "response"))
        return asdict(verdict)

    async def _episode(self, episode: Episode) -> Verdict:
        verdict = _unanswered(episode)
        if verdict is not None:
            return verdict
        answer = episode.turns[-1].completion
        return await self._judge(episode.task, answer, episode)

    def _task(self, row: dict[str, Any]) -> Task:
        """Return the task of a line.

        Raises:
            DataError: The line says of none.
        """
        task = row.get("task")
        if isinstance(task, int) and not isinstance(task, bool):
            split = row.get("split", "train")
            if split not in get_args(Split):
                raise DataError(f"field 'split' is {shown(split)}; use train or test")
            return self._scenario.source.task(split, task)
        if isinstance(task, dict):
            fields = {"id": "line", "prompt": "-", **task}
            try:
                return construct(Task, fields, "field 'task'")
            except ConfigError as error:
                raise DataError(str(error)) from error
        gold = _text(row, "gold")
        # Without a verifier of one's own a line is mathematics unless it says.
        usual = "math" if isinstance(self._scenario.verifier, ByKind) else "own"
        kind = str(row.get("kind", usual))
        return Task(id="line", prompt="-", answer=gold, kind=kind)

    async def _judge(
        self, task: Task, text: str, episode: Episode | None = None
    ) -> Verdict:
        """Return the verdict on a text; tools with a state are made anew for it."""
        tools = self._scenario.toolbox.open(task)
        try:
            await tools.start(self._scenario.pool.limits.deadline_s)
            view = _view(task, text, episode, tools.instances)
            return await run_verifier(self._scenario.verifier, task, text, view)
        finally:
            await tools.close()


def _is_episode(row: dict[str, Any]) -> bool:
    """Return whether a line is a recorded episode."""
    return "turns" in row and "verdict" in row


def _view(
    task: Task, text: str, episode: Episode | None, tools: Mapping[str, Any]
) -> EpisodeView:
    """Return what a verifier is shown of an episode; without one, of its only turn."""
    if episode is None:
        message = Message("assistant", (Span(text, Author.POLICY),))
        return EpisodeView(task=task, answer=text, messages=(message,), tools=tools)
    return EpisodeView(
        task=task,
        answer=text,
        messages=episode.messages,
        consults=episode.consults,
        tools=tools,
        aided=episode.aided,
    )


def _unanswered(episode: Episode) -> Verdict | None:
    """Return the verdict on an episode that has no answer to grade; None if it has one.

    Raises:
        DataError: Its gold answer was withheld when it was stored.
    """
    task = episode.task
    if task.withheld and task.answer == task.withheld:
        raise DataError(
            f"the gold of {shown(task.id)} was withheld when the episode was stored"
        )
    if episode.stop_reason in _WITH_ANSWER and episode.turns:
        return None
    reason = f"the episode ended before an answer: {episode.stop_reason.value}"
    return judged("no_answer", reason=reason)


def _options(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the options of a line, or of options that are only counted their letters.

    Raises:
        DataError: There is no such list, or no such number.
    """
    # Where options are only counted, their field may be there and empty.
    if row.get("options") is not None:
        options = row["options"]
        if not isinstance(options, list):
            raise DataError(
                f"field 'options' must be a list of texts, got {shown(options)}"
            )
        return tuple(options)
    number = row["n_options"]
    if type(number) is not int or not 1 <= number <= len(LETTERS):
        form = f"a whole number from 1 to {len(LETTERS)}"
        raise DataError(f"field 'n_options' must be {form}, got {shown(number)}")
    return tuple(LETTERS[:number])


def _code_task(row: dict[str, Any]) -> Task:
    """Return the task of a line: of its `task`, or of the dataset's row in `problem`.

    Raises:
        KeyError: It has neither. DataError: It is no object, or no task can be made.
    """
    if "problem" in row and "task" not in row:
        problem = row["problem"]
        if not isinstance(problem, dict):
            raise DataError(
                f"field 'problem' must be a row of a dataset, got {shown(problem)}"
            )
        try:
            return Task(id="line", **read_code_problem(problem))
        except Unusable as error:
            raise DataError(f"field 'problem' is no problem: {error}") from error
    tests = row["task"]
    if not isinstance(tests, dict):
        raise DataError(
            f"field 'task' must be an object with the tests, got {shown(tests)}"
        )
    tests = {**tests, "hidden": tests.get("hidden") or tests["tests"]}
    name = str(tests.get("id", "task"))[:MAX_SHOWN]
    given: Any = tests  # which the task makes its tests of
    return Task(id=name, prompt="-", answer="", kind="code", tests=given)


def _text(row: dict[str, Any], field: str) -> str:
    """Return a field of a line that is text.

    Raises:
        KeyError: It is missing. DataError: It is something else.
    """
    value = row[field]
    if not isinstance(value, str):
        raise DataError(f"field {field!r} must be text, got {shown(value)}")
    return value


def _case(case: CaseResult) -> dict[str, Any]:
    """Return what is written of one test."""
    return {
        "status": case.status,
        "reason": case.reason,
        "stdout": case.run.stdout.decode("utf-8", "replace"),
        "stderr": case.run.stderr.decode("utf-8", "replace"),
        "seconds": round(case.run.seconds, _SECONDS_PLACES),
    }
