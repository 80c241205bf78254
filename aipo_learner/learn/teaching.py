"""A teacher on the policy's own tokens: which it scores, and their advantages.

On-policy distillation (arXiv 2306.13649), by a teacher of its own or by the policy that
is shown more (arXiv 2601.18734, 2601.20802). docs/objective.md has the equation.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aipo_env import Author, Episode, Message, Span, Task, write_anew
from aipo_learner.learn.metrics import Metrics
from aipo_learner.learn.objective import per_token
from aipo_learner.learn.rows import Row, Taught
from aipo_learner.policy.teacher import Teacher, TeacherContext, TokenScores
from aipo_learner.rollout.stored import encodable_message
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.settings.objective import ObjectiveConfig

MAX_TEACHER_GAP = 100.0
"""Nats by which log q and log o differ at most: the logarithm of a q of 0 is none."""
_LEAD_IN = {
    "replies": "What others have said about this task:",
    "verdict": "What came of checking an answer that you gave to this before:",
    "answer": "The solution of this, which you alone are shown:",
}
"""What stands before what the policy is shown that is its own teacher."""
_SUFFIX = ".teacher.json"
"""In place of `.jsonl`, the name of the file beside one of episodes."""
_NO_CONTEXT = TeacherContext(np.zeros(0, np.int64), np.zeros(0, bool))
"""Of a row that no teacher is asked of."""


def taught_advantages(
    advantages: Tensor,
    old_logprobs: Tensor,
    teacher_logprobs: Tensor,
    policy_mask: Tensor,
    config: ObjectiveConfig,
) -> tuple[Tensor, Metrics]:
    """Return g * A + beta * (log q - log o) of each own token, g * A of all others.

    Args:
        advantages: float[batch] or float[batch, tokens], A.
        old_logprobs: float[batch, tokens], log o: the policy's at the rollout's
            weights.
        teacher_logprobs: float[batch, tokens], log q; where it is NaN, the token has g
            * A, as in episodes that the teacher is not asked of.
        policy_mask: bool[batch, tokens].
        config: Says g, `advantage_weight`, and beta, `teacher_weight`.

    Returns:
        The advantages, float[batch, tokens], detached; and metrics for `merge_metrics`
        and `summarize`.

    Raises:
        ValueError: The shapes differ.
    """
    for name, tensor in {
        "teacher_logprobs": teacher_logprobs,
        "policy_mask": policy_mask,
    }.items():
        if tensor.shape != old_logprobs.shape:
            raise ValueError(
                f"{name} has shape {list(tensor.shape)}: it must have the shape of"
                f" old_logprobs, {list(old_logprobs.shape)}."
            )
    of_episode = config.advantage_weight * per_token(advantages, old_logprobs)
    difference = teacher_logprobs - old_logprobs
    is_known = policy_mask & ~difference.isnan()
    # Selected before anything is computed of it: elsewhere it may be anything.
    gap = torch.where(is_known, difference, 0.0)
    gap = gap.clamp(-MAX_TEACHER_GAP, MAX_TEACHER_GAP).detach()
    metrics = {
        "teacher_gap_sum": gap.sum(),
        "teacher_tokens": is_known.sum().to(gap.dtype),
    }
    return of_episode.detach() + config.teacher_weight * gap, metrics


def is_asked(episode: Episode, advantage: float, objective: ObjectiveConfig) -> bool:
    """Return whether a teacher is to score the policy's tokens of an episode.

    Args:
        episode: Any.
        advantage: Of it.
        objective: Says when.
    """
    if not objective.has_teacher:
        return False
    if objective.teacher_when == "correct":
        return episode.correct
    if objective.teacher_when == "failed":
        return advantage <= 0
    return True


def replies_in(group: Sequence[Episode]) -> str:
    """Return what agents said to the episodes of a task, each reply once."""
    replies = [
        consult.reply.strip()
        for episode in group
        for consult in episode.consults
        if consult.is_agents and consult.status == "answered"
    ]
    return "\n\n".join(dict.fromkeys(filter(None, replies)))


def verdict_on(episode: Episode) -> str:
    """Return in words what became of an episode's answer."""
    verdict = episode.verdict
    if verdict is None:
        return f"There was no answer: {episode.stop_reason.value}."
    lines = [f"Verdict: {verdict.status}"]
    if verdict.extracted:
        lines.append(f"Taken for the answer: {verdict.extracted}")
    lines += [text for text in (verdict.stage, verdict.reason) if text]
    return "\n".join(lines)


def solution_of(task: Task) -> str:
    """Return a task's solution: a program that passes, or the gold answer.

    The option's text stands behind a letter. "" where a task of code has none.
    """
    if task.tests is not None and task.tests.solution:
        return task.tests.solution
    place = ord(task.answer) - ord("A") if len(task.answer) == 1 else -1
    if task.kind == "choice" and 0 <= place < len(task.choices):
        return f"{task.answer}: {task.choices[place]}"
    return task.answer


def text_shown(shown: str, episode: Episode, group: Sequence[Episode]) -> str:
    """Return what the policy is shown that is its own teacher; "" if there is nothing.

    Args:
        shown: A word of `SHOWN`.
        episode: Whose tokens are scored.
        group: The episodes of its task.
    """
    if shown == "replies":
        return replies_in(group)
    if shown == "verdict":
        return verdict_on(episode)
    return solution_of(episode.task)


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Which rows a teacher is asked of, and what it reads of them.

    Args:
        objective: Says in which episodes.
        chat: How the policy's conversations are written.
        shown: What the policy is shown that is its own teacher, by a word of `SHOWN`;
            "": the teacher reads what the policy read.
        max_tokens: What it can read; any number if None.
        num_token_ids: How many ids it knows; any if None.
    """

    objective: ObjectiveConfig
    chat: ChatFormat
    shown: str = ""
    max_tokens: int | None = None
    num_token_ids: int | None = None

    def taught(
        self,
        row: Row,
        episode: Episode,
        group: Sequence[Episode],
        opening: Sequence[Message] = (),
    ) -> Row:
        """Return a row that says whether a teacher is asked of it.

        Args:
            row: Of the episode, with its advantage.
            episode: Whose it is.
            group: The episodes of its task, of which it may be shown something.
            opening: The messages of the row's prompt; those of the episode if not
                given.
        """
        is_own = bool(row.policy_mask.any())
        if not is_own or not is_asked(episode, row.advantage, self.objective):
            return row
        prompt = None
        num_tokens = len(row.token_ids)
        if self.shown:
            messages = self.messages(episode, group, opening)
            if not messages:
                return replace(row, taught=Taught.NOTHING_TO_SHOW)
            pieces = self.chat.prompt(messages)
            prompt = np.array([each for ids, _ in pieces for each in ids], np.int64)
            num_tokens += len(prompt) - row.num_prompt
        is_long = self.max_tokens is not None and num_tokens > self.max_tokens
        highest = int(row.token_ids.max())
        is_foreign = self.num_token_ids is not None and highest >= self.num_token_ids
        if is_long or is_foreign:
            return replace(row, taught=Taught.UNREADABLE)
        return replace(row, taught=Taught.ASKED, teacher_prompt=prompt)

    def messages(
        self,
        episode: Episode,
        group: Sequence[Episode],
        opening: Sequence[Message] = (),
    ) -> list[Message]:
        """Return the prompt of the policy as its own teacher; none if it knows no more.

        It is the prompt of the row, at whose end stands what is shown.

        Args:
            episode: As for `taught`, and so are the others.
            group: See there.
            opening: See there.
        """
        text = text_shown(self.shown, episode, group)
        messages = list(opening) or opening_of(episode)
        if not text.strip() or not messages:
            return []
        last = messages[-1]
        span = Span(f"\n\n{_LEAD_IN[self.shown]}\n{text}", Author.PROMPT)
        messages[-1] = replace(last, spans=(*last.spans, span))
        return [encodable_message(message) for message in messages]


def opening_of(episode: Episode) -> list[Message]:
    """Return the messages of an episode's prompt."""
    return list(
        takewhile(lambda message: message.role != "assistant", episode.messages)
    )


def teaching_counts(rows: Sequence[Row]) -> dict[str, float]:
    """Return how many rows a teacher is asked of, and how many it cannot be asked of.

    Args:
        rows: All that were made, those of groups that are left out included.
    """
    reasons = [row.taught for row in rows]
    return {
        "rows/taught": reasons.count(Taught.ASKED),
        "rows/nothing_to_show": reasons.count(Taught.NOTHING_TO_SHOW),
        "rows/unreadable": reasons.count(Taught.UNREADABLE),
    }


def scored(passes: Sequence[Sequence[Row]], teacher: Teacher) -> list[list[Row]]:
    """Return the rows of an update's passes with what a teacher says of their tokens.

    Args:
        passes: This rank's.
        teacher: Asked of the rows that are taught.

    Raises:
        PolicyError: It gives no scores; the message says why.
    """
    contexts = [[_context(row) for row in rows] for rows in passes]
    scores_of_passes = teacher.score(contexts)
    return [
        _with_scores(rows, scores)
        for rows, scores in zip(passes, scores_of_passes, strict=True)
    ]


def _context(row: Row) -> TeacherContext:
    """Return what a teacher reads of a row."""
    if not row.is_taught:
        return _NO_CONTEXT
    if row.teacher_prompt is None:
        return TeacherContext(row.token_ids, row.policy_mask)
    # All the policy's tokens stand behind the prompt that is replaced.
    unwanted = np.zeros(len(row.teacher_prompt), bool)
    rest = slice(row.num_prompt, None)
    return TeacherContext(
        token_ids=np.concatenate([row.teacher_prompt, row.token_ids[rest]]),
        wanted=np.concatenate([unwanted, row.policy_mask[rest]]),
    )


def _with_scores(rows: Sequence[Row], scores: TokenScores) -> list[Row]:
    return [
        replace(row, teacher_logprobs=_placed(row, of_row))
        for row, of_row in zip(rows, scores, strict=True)
    ]


def _placed(row: Row, scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores of a row's own tokens at their places: float32[T]."""
    logprobs = np.full(len(row.token_ids), np.nan, np.float32)
    if row.is_taught:
        logprobs[row.policy_mask] = scores
        # The learner has no probability of a first token to compare with.
        logprobs[0] = np.nan
    return logprobs


def write_contexts(path: Path, group: Sequence[Episode], teaching: Teaching) -> None:
    """Write what the policy reads as its own teacher beside a group's episodes.

    `….teacher.json` has a list of messages for each episode, empty where nothing is
    shown; of a task that may not be published, a notice.

    Args:
        path: Of the episodes, `….jsonl`.
        group: The episodes, in the order of the file.
        teaching: Says what is shown.
    """
    contexts = [_written(episode, group, teaching) for episode in group]
    text = json.dumps(contexts, ensure_ascii=True)
    write_anew(path.with_suffix(_SUFFIX), text + "\n")


def _written(
    episode: Episode, group: Sequence[Episode], teaching: Teaching
) -> list[dict[str, str]]:
    """Return the messages of a teacher's prompt, as JSON has them."""
    notice = episode.task.withheld
    return [
        {"role": message.role, "content": notice or message.content}
        for message in teaching.messages(episode, group)
    ]
