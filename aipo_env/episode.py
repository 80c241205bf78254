"""The record of one finished episode, in text and in tokens; JSON lines out and exactly
back.

The token record holds the very ids that the policy sampled and saw, each with its
author.
"""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

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


class Run(NamedTuple):
    """Tokens of one author that stand together; without `logprobs` these are
    unknown.
    """

    token_ids: Sequence[int]
    author: int
    call_id: int
    turn: int
    logprobs: Sequence[float]
    is_content: bool


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
        return isinstance(other, TokenRecord) and all(
            np.array_equal(
                getattr(self, name),
                getattr(other, name),
                equal_nan=name == "behaviour_logprobs",
            )
            for name in _DTYPES
        )

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
        """Build a record from one sequence per field; null log-probabilities become
        NaN.
        """
        known = {name: dtype for name, dtype in _DTYPES.items() if name in columns}
        return cls(
            **{name: np.asarray(columns[name], dtype) for name, dtype in known.items()}
        )

    @classmethod
    def join(cls, runs: Sequence[Run]) -> "TokenRecord":
        """Join runs of tokens."""
        sizes = [len(run.token_ids) for run in runs]
        num_tokens = sum(sizes)
        all_ids = itertools.chain.from_iterable(run.token_ids for run in runs)
        logprobs = np.full(num_tokens, np.nan, np.float32)
        for run, end in zip(runs, itertools.accumulate(sizes), strict=True):
            logprobs[end - len(run.logprobs) : end] = run.logprobs

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
        """Return the episode itself: it is a record, and some libraries copy every
        `info` deeply.
        """
        return self

    @property
    def correct(self) -> bool:
        """Whether the verifier accepted the answer."""
        return self.verdict is not None and bool(self.verdict.correct)

    @property
    def is_revealed(self) -> bool:
        """Whether an agent's reply stated the gold answer, one with few candidates, and
        was shown.
        """
        return any(consult.reveals for consult in self.consults)

    @property
    def policy_versions(self) -> NDArray[np.int32]:
        """int32[T], the weights that sampled each of the policy's tokens; -1 elsewhere
        and where unknown.
        """
        if self.tokens.policy_version is not None:
            return self.tokens.policy_version
        return np.where(
            self.tokens.policy_mask, np.int32(self.policy_version), np.int32(-1)
        )

    def __repr__(self) -> str:
        """No text: a repr ends in logs."""
        return (
            f"Episode({self.task!r}, stop_reason={self.stop_reason.value!r},"
            f" reward={self.reward})"
        )

    def to_dict(self, *, reveal: bool = False) -> dict[str, Any]:
        """Return a JSON-able dictionary that `from_dict` turns back into an equal
        episode.

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
        """Rebuild an episode; a row of another shape raises what Python makes of it;
        `read_episodes` explains.
        """
        return cls(
            **{
                **row,
                "task": Task(**row["task"]),
                "messages": tuple(
                    Message(
                        m["role"],
                        tuple(
                            Span(**{**s, "author": Author(s["author"])})
                            for s in m["spans"]
                        ),
                    )
                    for m in row["messages"]
                ),
                "turns": tuple(
                    Turn(**{**t, "calls": tuple(Call(**c) for c in t.get("calls", ()))})
                    for t in row["turns"]
                ),
                "consults": tuple(Consult(**consult) for consult in row["consults"]),
                "tokens": TokenRecord.build(row["tokens"]),
                "verdict": row["verdict"] and Verdict(**row["verdict"]),
                "stop_reason": StopReason(row["stop_reason"]),
            }
        )


def redact(episode: Episode) -> Episode:
    """Return what may be shown of an episode in public: all of it, unless its task's
    source forbids republication.

    Then a notice stands for every text, since those of the policy and the agents may
    quote the task, and token ids are zero. Who wrote how much, what was decided and the
    task's id stay.
    """
    if not (notice := episode.task.withheld):
        return episode
    meta = {"no_republish": True}
    return replace(
        episode,
        task=replace(
            episode.task,
            prompt=notice,
            answer=notice,
            choices=(),
            tests=None,
            meta=meta,
        ),
        messages=tuple(
            Message(
                m.role,
                tuple(
                    replace(span, text=notice, token_ids=(), logprobs=())
                    for span in m.spans
                ),
            )
            for m in episode.messages
        ),
        turns=tuple(
            Turn(
                notice,
                turn.finish_reason,
                tuple(Call(call.kind, notice) for call in turn.calls),
                notice,
            )
            for turn in episode.turns
        ),
        consults=tuple(
            replace(
                c,
                query=notice,
                reply=c.reply and notice,
                error="",
                token_ids=(),
                logprobs=(),
            )
            for c in episode.consults
        ),
        tokens=replace(
            episode.tokens, token_ids=np.zeros_like(episode.tokens.token_ids)
        ),
        verdict=episode.verdict and replace(episode.verdict, extracted="", reason=""),
    )


def _plain(value: Any) -> Any:
    """Return what JSON makes of a record and of all it holds, but sampled tokens: the
    token record has them.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, TokenRecord):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return list(map(_plain, value))
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value):
        return {
            name: _plain(getattr(value, name)) for name in _recorded(value.__class__)
        }
    return value


@cache
def _recorded(kind: Any) -> list[str]:
    return [item.name for item in fields(kind) if item.repr]


def write_episodes(
    path: str | Path, episodes: Iterable[Episode], *, reveal: bool = False
) -> None:
    """Append episodes to a JSON-lines file; a last line that a crash cut short is not
    continued.

    `reveal` as in `Episode.to_dict`.
    """
    path = Path(path)
    with path.open("a+b") as existing:
        size = existing.seek(0, 2)
        if size and existing.seek(size - 1) and existing.read() != b"\n":
            existing.write(b"\n")
    with path.open("a", encoding="utf-8") as file:
        for episode in episodes:
            file.write(
                json.dumps(
                    episode.to_dict(reveal=reveal), ensure_ascii=True, allow_nan=False
                )
                + "\n"
            )
