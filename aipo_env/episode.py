"""The record of one finished episode, in text and in tokens, to JSON lines and back.

The token record holds the very ids that the policy sampled and saw, each with its
author.
"""

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aipo_env.records import (
    Author,
    Call,
    Consult,
    Message,
    Span,
    StopReason,
    Task,
    Turn,
    Verdict,
)


class TokenRun(NamedTuple):
    """Tokens of one author that stand together.

    Args:
        token_ids: The ids.
        author: An `Author`.
        call_id, turn, is_content: As in `TokenRecord`, one for all of them.
        logprobs: One of each token, or none: then they are unknown.
    """

    token_ids: Sequence[int]
    author: int
    call_id: int
    turn: int
    logprobs: Sequence[float]
    is_content: bool


_UNKNOWN_VERSION = -1
"""Stands for the weights of a token that the policy did not sample."""
_DTYPES = {
    "token_ids": np.int32,
    "author": np.int8,
    "call_id": np.int32,
    "turn": np.int16,
    "behaviour_logprobs": np.float32,
    "is_content": np.bool_,
    "policy_version": np.int32,
}


@dataclass(frozen=True, slots=True, eq=False)
class TokenRecord:
    """One entry per token of an episode, all of length T.

    Args:
        token_ids: int32[T], as sampled or as inserted; never re-tokenised.
        author: int8[T], an `Author` each; the authors partition the tokens.
        call_id: int32[T], the consultation that a token of a reply or its wrapper
            belongs to, -1 elsewhere.
        turn: int16[T], completions before this token; prompt tokens are in turn 0.
        behaviour_logprobs: float32[T], log-probability under whoever wrote the token;
            NaN means unknown.
        is_content: bool[T], true for the body of an agent's reply, false for its
            wrapper and all else.
        policy_version: int32[T], the weights that sampled each of the policy's tokens,
            -1 elsewhere and where unknown; None where it is the episode's for all of
            them.

    Raises:
        ValueError: The arrays differ in length.
    """

    token_ids: NDArray[np.int32]
    author: NDArray[np.int8]
    call_id: NDArray[np.int32]
    turn: NDArray[np.int16]
    behaviour_logprobs: NDArray[np.float32]
    is_content: NDArray[np.bool_]
    policy_version: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in self._columns()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"token record arrays differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.token_ids)

    def _columns(self) -> list[str]:
        return [name for name in _DTYPES if getattr(self, name) is not None]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenRecord):
            return False
        for name in _DTYPES:
            # An unknown log-probability is NaN, which by itself equals nothing.
            has_nan = name == "behaviour_logprobs"
            own_column = getattr(self, name)
            column = getattr(other, name)
            if not np.array_equal(own_column, column, equal_nan=has_nan):
                return False
        return True

    @property
    def policy_mask(self) -> NDArray[np.bool_]:
        """bool[T], the policy's own tokens."""
        return np.equal(self.author, Author.POLICY)

    @property
    def agent_mask(self) -> NDArray[np.bool_]:
        """bool[T], reply content written by an agent."""
        return np.equal(self.author, Author.AGENT) & self.is_content

    @classmethod
    def build(cls, columns: Mapping[str, Sequence[Any]]) -> "TokenRecord":
        """Build a record from one sequence per field; None is an unknown logprob.

        Raises:
            TypeError: A field is missing. ValueError: They differ in length.
        """
        arrays: dict[str, Any] = {
            name: np.asarray(columns[name], dtype)  # of None it makes NaN
            for name, dtype in _DTYPES.items()
            if name in columns
        }
        return cls(**arrays)

    @classmethod
    def join(cls, runs: Sequence[TokenRun]) -> "TokenRecord":
        """Join runs of tokens."""
        sizes = [len(run.token_ids) for run in runs]
        num_tokens = sum(sizes)
        all_ids = itertools.chain.from_iterable(run.token_ids for run in runs)
        logprobs = np.full(num_tokens, np.nan, np.float32)
        ends = itertools.accumulate(sizes)
        for run, end in zip(runs, ends, strict=True):
            # Of no log-probabilities this is an empty slice, and NaN stays.
            start = end - len(run.logprobs)
            logprobs[start:end] = run.logprobs

        def spread(values: list[int], dtype: type) -> NDArray[Any]:
            """Repeat the value of each run for all its tokens."""
            return np.repeat(np.array(values, dtype), sizes)

        return cls(
            token_ids=np.fromiter(all_ids, np.int32, num_tokens),
            author=spread([run.author for run in runs], np.int8),
            call_id=spread([run.call_id for run in runs], np.int32),
            turn=spread([run.turn for run in runs], np.int16),
            behaviour_logprobs=logprobs,
            is_content=spread([run.is_content for run in runs], np.bool_),
        )

    def to_dict(self) -> dict[str, list[Any]]:
        """Return plain lists; NaN becomes null."""
        columns: dict[str, list[Any]] = {
            name: getattr(self, name).tolist() for name in self._columns()
        }
        logprobs = columns["behaviour_logprobs"]
        columns["behaviour_logprobs"] = [
            None if math.isnan(logprob) else logprob for logprob in logprobs
        ]
        return columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One finished episode.

    Args:
        aided: Whether the policy saw the consult prompt and could consult.
        reward: Sum of `reward_parts`; None when the verifier or the policy's engine
            failed: such an episode is kept and never trained on.
        group_id: Shared by the rollouts of one task in one step.
        num_forged: Marks of a reply that the policy wrote itself.
        num_invalid: Malformed turns.
        policy_version: Optimiser steps behind the weights that sampled it, unless
            `tokens` has versions of its own.
    """

    task: Task
    aided: bool
    messages: tuple[Message, ...]
    turns: tuple[Turn, ...]
    consults: tuple[Consult, ...]
    tokens: TokenRecord
    verdict: Verdict | None
    reward: float | None
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    stop_reason: StopReason
    group_id: str = ""
    num_forged: int = 0
    num_invalid: int = 0
    policy_version: int = 0

    def __deepcopy__(self, memo: object) -> "Episode":
        """Return the episode itself: some libraries copy every `info` deeply."""
        return self

    @property
    def correct(self) -> bool:
        """Whether the verifier accepted the answer."""
        return self.verdict is not None and bool(self.verdict.correct)

    @property
    def is_revealed(self) -> bool:
        """Whether a reply was shown that stated the gold, one with few candidates."""
        return any(consult.reveals for consult in self.consults)

    @property
    def policy_versions(self) -> NDArray[np.int32]:
        """int32[T], the weights that sampled each of the policy's tokens; -1 elsewhere.

        It is -1 also where they are unknown.
        """
        if self.tokens.policy_version is not None:
            return self.tokens.policy_version
        # Plain integers would make it int64.
        own_version = np.int32(self.policy_version)
        unknown = np.int32(_UNKNOWN_VERSION)
        return np.where(self.tokens.policy_mask, own_version, unknown)

    def __repr__(self) -> str:
        """No text: a repr ends in logs."""
        return (
            f"Episode({self.task!r}, stop_reason={self.stop_reason.value!r},"
            f" reward={self.reward})"
        )

    def to_dict(self, *, reveal: bool = False) -> dict[str, Any]:
        """Return a JSON-able dictionary, of which `from_dict` makes an equal episode.

        Args:
            reveal: Whether to keep the text of a source that forbids republication; see
                `redact`.
        """
        if self.task.withheld and not reveal:
            return redact(self).to_dict(reveal=True)
        row: dict[str, Any] = _plain(self)
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Episode":
        """Rebuild an episode from what `to_dict` returned.

        Raises:
            TypeError, KeyError, ValueError: The row has another shape; `read_episodes`
                explains what is wrong with it.
        """
        fields = {
            **row,
            "task": Task(**row["task"]),
            "messages": tuple(map(_message, row["messages"])),
            "turns": tuple(map(_turn, row["turns"])),
            "consults": tuple(Consult(**consult) for consult in row["consults"]),
            "tokens": TokenRecord.build(row["tokens"]),
            "verdict": row["verdict"] and Verdict(**row["verdict"]),
            "stop_reason": StopReason(row["stop_reason"]),
        }
        return cls(**fields)


def _message(row: Mapping[str, Any]) -> Message:
    spans = tuple(map(_span, row["spans"]))
    return Message(row["role"], spans)


def _span(row: Mapping[str, Any]) -> Span:
    author = Author(row["author"])
    return Span(**{**row, "author": author})


def _turn(row: Mapping[str, Any]) -> Turn:
    calls = [Call(**call) for call in row.get("calls", ())]
    return Turn(**{**row, "calls": tuple(calls)})


def redact(episode: Episode) -> Episode:
    """Return what may be shown of an episode in public.

    That is all of it, unless its task's source forbids republication. Then a notice
    stands for every text, since those of the policy and the agents may quote the task,
    and token ids are zero. Who wrote how much, what was decided and the task's id stay.
    """
    notice = episode.task.withheld
    if not notice:
        return episode
    verdict = episode.verdict
    if verdict is not None:
        verdict = replace(verdict, extracted="", reason="")
    tokens = episode.tokens
    return replace(
        episode,
        task=_redacted_task(episode.task, notice),
        messages=tuple(_redacted_message(each, notice) for each in episode.messages),
        turns=tuple(_redacted_turn(turn, notice) for turn in episode.turns),
        consults=tuple(_redacted_consult(each, notice) for each in episode.consults),
        tokens=replace(tokens, token_ids=np.zeros_like(tokens.token_ids)),
        verdict=verdict,
    )


def _redacted_task(task: Task, notice: str) -> Task:
    return replace(
        task,
        prompt=notice,
        answer=notice,
        choices=(),
        tests=None,
        meta={"no_republish": True},
    )


def _redacted_message(message: Message, notice: str) -> Message:
    spans = [
        replace(span, text=notice, token_ids=(), logprobs=()) for span in message.spans
    ]
    return Message(message.role, tuple(spans))


def _redacted_turn(turn: Turn, notice: str) -> Turn:
    calls = tuple(Call(call.kind, notice) for call in turn.calls)
    return Turn(notice, turn.finish_reason, calls, feedback=notice)


def _redacted_consult(consult: Consult, notice: str) -> Consult:
    return replace(
        consult,
        query=notice,
        reply=notice if consult.reply else "",
        error="",
        token_ids=(),
        logprobs=(),
    )


def _plain(value: Any) -> Any:
    """Return what JSON makes of a record and of all that is recorded of it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, TokenRecord):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return list(map(_plain, value))
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value):
        names = _recorded(value.__class__)
        return {name: _plain(getattr(value, name)) for name in names}
    return value


@cache
def _recorded(kind: Any) -> list[str]:
    """Return a record's fields, without tokens: the token record has them."""
    return [item.name for item in fields(kind) if item.repr]


def write_episodes(
    path: str | Path, episodes: Iterable[Episode], *, reveal: bool = False
) -> None:
    """Append episodes to a JSON-lines file.

    A last line that a crash cut short is not continued.

    Args:
        path: The file, which need not exist.
        episodes: What is written, one a line.
        reveal: As in `Episode.to_dict`.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    with path.open("a+b") as existing:
        if _is_cut_short(existing):
            existing.write(b"\n")
    with path.open("a", encoding="utf-8") as file:
        for episode in episodes:
            row = episode.to_dict(reveal=reveal)
            line = json.dumps(row, ensure_ascii=True, allow_nan=False)
            file.write(line + "\n")


def _is_cut_short(file: BinaryIO) -> bool:
    """Return whether a file's last line has no end."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return False
    file.seek(size - 1)
    return file.read() != b"\n"
