"""Demonstrations inside sampled groups: `aipo train --demonstrations` (LUFFY, RL-PLUS).

A demonstration is a right solution of a training task that somebody else wrote. It
stands in the group of its task beside the rollouts, shares in their baseline, and its
tokens have the author "agent", so that the agent rule weighs them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from aipo_env import (
    Author,
    DataError,
    Episode,
    Message,
    Scenario,
    Span,
    StopReason,
    Task,
    TokenRecord,
    Turn,
    all_of,
    bounded_lines,
    check_line,
    read_episodes,
    run_sync,
    shown,
)
from aipo_learner.rollout.sampled import Groups
from aipo_learner.rollout.stored import judged_episode, with_tokens

MAX_LEFT_OUT = 5
"""So many lines that are left out are named."""
_PLAIN = "solution"
"""A row that has it is a solution, and no episode."""


@dataclass(frozen=True)
class Demonstrations:
    """Solutions of others, by task.

    Args:
        by_task: Episodes whose turns agents wrote, by the id of their task.
        note: What was read and what was left out, in words.
    """

    by_task: Mapping[str, Sequence[Episode]] = field(default_factory=dict)
    note: str = ""

    def of(self, group: Sequence[Episode]) -> list[Episode]:
        """Return the demonstrations of a group's task."""
        task = group[0].task
        return [
            shown_how
            for shown_how in self.by_task.get(task.id, ())
            if _is_same(shown_how.task, task)
        ]

    def joined(self, groups: Groups) -> Groups:
        """Return groups, each with the demonstrations of its task behind it."""
        return [[*group, *self.of(group)] for group in groups]

    def num_groups(self, groups: Groups) -> int:
        """Return how many groups have one."""
        return sum(bool(self.of(group)) for group in groups)


NO_DEMONSTRATIONS = Demonstrations()
"""Those of a run without a file of them."""


def _is_same(task: Task, other: Task) -> bool:
    """Return whether two tasks of one id are the same: several sets may use an id."""
    return task.prompt.strip() == other.prompt.strip()


class _Line(NamedTuple):
    """A line of the file, as an episode of a training task; None if it is of none."""

    number: int
    name: str
    episode: Episode | None


def read_demonstrations(
    path: Path,
    scenario: Scenario,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int | None = None,
) -> Demonstrations:
    """Read a file of demonstrations; leave out what is wrong or of no training task.

    Its lines are episodes, or rows with a `solution` and the `id` or the `prompt` of a
    training task. What was rewarded elsewhere is judged again, by the verifier of the
    run.

    Args:
        path: JSON lines.
        scenario: What is played: its training tasks, its prompt, its verifier.
        tokenizer: The policy's.
        max_tokens: Of an episode, as many as the policy can read; any number if None.

    Raises:
        DataError: The file cannot be read, a line has another form, or nothing of it
            can be used.
    """
    tasks = _Tasks.of(scenario)
    read = _rows if _is_plain(path) else _episodes
    lines = list(read(path, scenario, tasks))
    strange = [line for line in lines if line.episode is None]
    known = [(line, line.episode) for line in lines if line.episode is not None]
    checked = []
    for line, episode in known:
        place = f"{path}, line {line.number}"
        whole = with_tokens(episode, place, scenario, tokenizer, max_tokens)
        checked.append(whole)
    verdicts = run_sync(
        all_of(judged_episode(episode, scenario) for episode in checked)
    )
    by_task: dict[str, list[Episode]] = {}
    wrong: list[_Line] = []
    for (line, _), episode in zip(known, verdicts, strict=True):
        if episode.correct:
            by_task.setdefault(episode.task.id, []).append(as_agents(episode))
        else:
            wrong.append(line)
    note = _note(path, by_task, wrong, strange)
    if not by_task:
        raise DataError(
            f"{note}. Nothing of it can be used: give solutions of the training tasks"
            " that the verifier accepts (`aipo verify` tries it on episodes)."
        )
    return Demonstrations(by_task, note)


def as_agents(episode: Episode) -> Episode:
    """Return an episode whose turns an agent wrote, and no policy.

    It is compared as an unaided rollout, and nobody was consulted in it.
    """
    tokens = episode.tokens
    is_solution = tokens.policy_mask
    return replace(
        episode,
        aided=False,
        consults=(),
        tokens=replace(
            tokens,
            author=np.where(is_solution, np.int8(Author.AGENT), tokens.author),
            is_content=tokens.is_content | is_solution,
            policy_version=None,
        ),
    )


@dataclass(frozen=True)
class _Tasks:
    """The training tasks by id and by prompt; None where they have no end."""

    by_id: Mapping[str, Task] | None
    by_prompt: Mapping[str, Task]

    @classmethod
    def of(cls, scenario: Scenario) -> "_Tasks":
        num_tasks = scenario.source.num_tasks("train")
        if num_tasks is None:
            return cls(None, {})
        tasks = [scenario.source.task("train", index) for index in range(num_tasks)]
        # Of equal ones the first counts.
        in_turn = tasks[::-1]
        return cls(
            {task.id: task for task in in_turn},
            {task.prompt.strip(): task for task in in_turn},
        )

    def like(self, task: Task) -> Task | None:
        """Return the training task that an episode is of; None if there is none.

        Tasks without end are made as they are read: then the episode's own is taken for
        one.
        """
        if self.by_id is None:
            return task
        found = self.by_id.get(task.id)
        return found if found is not None and _is_same(found, task) else None


def _is_plain(path: Path) -> bool:
    """Return whether the first line of a file is a solution, and no episode."""
    for _, line in _numbered(path):
        try:
            row = json.loads(line)
        except (RecursionError, ValueError):
            return False
        return isinstance(row, dict) and _PLAIN in row
    return False


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file, from 1, as they are.

    Raises:
        DataError: There is no such file.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a .jsonl file of demonstrations.")
    with path.open("rb") as file:
        yield from enumerate(bounded_lines(file), 1)


def _episodes(path: Path, scenario: Scenario, tasks: _Tasks) -> Iterator[_Line]:
    """Yield the lines of a file of episodes, each with the task of the run."""
    for number, episode in enumerate(read_episodes(path), 1):
        task = tasks.like(episode.task)
        found = None
        if task is not None:
            # Whoever rewarded it may have had another verifier.
            found = replace(
                episode,
                task=task,
                verdict=None,
                reward=None,
                reward_parts={},
                stop_reason=StopReason.COMPLETED,
            )
        yield _Line(number, shown(episode.task.id), found)


def _rows(path: Path, scenario: Scenario, tasks: _Tasks) -> Iterator[_Line]:
    """Yield the lines of a file of solutions, each behind the prompt of deployment.

    Raises:
        DataError: A line has another form, or the tasks have no end.
    """
    if tasks.by_id is None:
        raise DataError(
            f"{path}: solutions are found by the ids or the prompts of the tasks, and"
            " these have no end here. Give episodes, which have their tasks with them"
            " (docs/episodes.md)."
        )
    for number, line in _numbered(path):
        row = _row(f"{path}, line {number}", line)
        if "id" in row:
            name = row["id"]
            task = tasks.by_id.get(name)
        else:
            name = row["prompt"]
            task = tasks.by_prompt.get(name.strip())
        solved = None if task is None else _solved(task, row[_PLAIN], scenario)
        yield _Line(number, shown(name), solved)


def _row(place: str, line: bytes) -> dict[str, Any]:
    """Return a line as a row with a solution and the id or the prompt of its task.

    Args:
        place: Names it in messages.
        line: JSON.

    Raises:
        DataError: It is none.
    """
    try:
        check_line(line)
        row = json.loads(line)
    except (RecursionError, ValueError) as error:
        raise DataError(f"{place}: no JSON ({error}). Correct or delete it.") from error
    if not isinstance(row, dict):
        raise DataError(
            f"{place}: no object of names and values. Correct or delete it."
        )
    wanted = (_PLAIN, "id" if "id" in row else "prompt")
    for name in wanted:
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise DataError(
                f"{place}: {name}={shown(row.get(name))} must be a text. A row has a"
                " 'solution', and the 'id' or the 'prompt' of its task."
            )
    return row


def _solved(task: Task, solution: str, scenario: Scenario) -> Episode:
    """Return the episode in which a solution is all that was said to a task."""
    # Any key: nothing is drawn.
    prompt = scenario.session(task, aided=False, key=(0,)).open()
    answer = Message("assistant", (Span(solution, Author.POLICY),))
    return Episode(
        task=task,
        aided=False,
        messages=(*prompt, answer),
        turns=(Turn(solution, "stop"),),
        consults=(),
        tokens=TokenRecord.join([]),
        verdict=None,
        reward=None,
        stop_reason=StopReason.COMPLETED,
    )


def _note(
    path: Path,
    by_task: Mapping[str, Sequence[Episode]],
    wrong: Sequence[_Line],
    strange: Sequence[_Line],
) -> str:
    """Return in words what was read of a file, and which lines were left out."""
    number = sum(len(episodes) for episodes in by_task.values())
    words = f"demonstrations: {path}, {number} of {len(by_task)} tasks"
    for lines, reason in (
        (wrong, "that the verifier does not accept"),
        (strange, "of tasks that are not trained on"),
    ):
        if lines:
            words += f"; left out {len(lines)} {reason} ({_named(lines)})"
    return words


def _named(lines: Sequence[_Line]) -> str:
    """Return the first of some lines by number and task."""
    names = [f"line {line.number}: {line.name}" for line in lines[:MAX_LEFT_OUT]]
    more = len(lines) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
