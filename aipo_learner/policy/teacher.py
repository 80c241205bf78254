"""What says how likely tokens are that the policy wrote: a teacher, and models as one.

A vLLM server is one too: `samplers/vllm/teacher.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from aipo_env import PolicyError, shown
from aipo_learner.policy.distributed import world_size
from aipo_learner.policy.forward import LearnerForward

_ANY_TOKEN = 0
"""Pads contexts: no token that is scored sees it."""


_NUM_IDLE_TOKENS = 16
"""Of the context of a pass in which a rank has nothing to ask, and others have."""


@dataclass(frozen=True, slots=True)
class TeacherContext:
    """What a teacher reads.

    Args:
        token_ids: int64[C].
        wanted: bool[C], the tokens that it scores. Without any it is asked nothing.
    """

    token_ids: NDArray[np.int64]
    wanted: NDArray[np.bool_]


TokenScores = list[NDArray[np.float32]]
"""Of each context, its wanted tokens' log-probabilities in nats, in order: NaN where
the teacher has none, as of a first token, which nothing predicts.
"""


class Teacher(Protocol):
    """Scores tokens, and draws none."""

    def score(self, passes: Sequence[Sequence[TeacherContext]]) -> list[TokenScores]:
        """Return the scores of some contexts, which come in the update's passes.

        On several ranks each has its own contexts, in as many passes as the others.

        Raises:
            PolicyError: They cannot be had; the message says why.
        """

    def close(self) -> None:
        """Free what it holds. May be called twice."""


class ForwardTeacher:
    """Scores with a model of this process: a teacher's, or the policy's own.

    Args:
        forward: Its forward pass, at the temperature at which the policy samples.
    """

    def __init__(self, forward: LearnerForward) -> None:
        self.forward = forward

    def score(self, passes: Sequence[Sequence[TeacherContext]]) -> list[TokenScores]:
        """Return the scores, from one forward pass for each pass.

        On several ranks it is made where nothing is wanted too: they gather the layers
        together.
        """
        return [self._score_pass(contexts) for contexts in passes]

    def close(self) -> None:
        """Do nothing: the model is the run's."""

    def _score_pass(self, contexts: Sequence[TeacherContext]) -> TokenScores:
        asked = [context for context in contexts if context.wanted.any()]
        if not asked and world_size() > 1:
            self._forward_scores([_idle_context()])
        scores = iter(self._forward_scores(asked) if asked else [])
        nothing = np.zeros(0, np.float32)
        return [
            next(scores) if context.wanted.any() else nothing for context in contexts
        ]

    @torch.no_grad()
    def _forward_scores(self, contexts: Sequence[TeacherContext]) -> TokenScores:
        """Return the scores of contexts, at least one, from one pass."""
        token_ids = [torch.from_numpy(context.token_ids) for context in contexts]
        is_real = [torch.ones_like(row) for row in token_ids]
        wanted = [torch.from_numpy(context.wanted) for context in contexts]
        logprobs, _ = self.forward(
            self._padded(token_ids, _ANY_TOKEN),
            self._padded(is_real, 0),
            self._padded(wanted, False),
        )
        scores: TokenScores = []
        for context, row in zip(contexts, logprobs.cpu().numpy(), strict=True):
            # A copy: the pass's tensor is let go.
            of_context = row[: len(context.token_ids)].astype(np.float32)
            of_context[0] = np.nan
            scores.append(of_context[context.wanted])
        return scores

    def _padded(self, rows: Sequence[Tensor], fill: float) -> Tensor:
        """Return rows of several lengths as one tensor, on the model's device."""
        padded = pad_sequence(list(rows), batch_first=True, padding_value=fill)
        return padded.to(self.forward.model.device)


def _idle_context() -> TeacherContext:
    """Return a context that every model can read, and of which nothing is wanted."""
    token_ids = np.full(_NUM_IDLE_TOKENS, _ANY_TOKEN, np.int64)
    return TeacherContext(token_ids, np.zeros(_NUM_IDLE_TOKENS, bool))


def check_same_vocabulary(
    own: PreTrainedTokenizerBase, teachers: PreTrainedTokenizerBase, name: str
) -> None:
    """Compare a teacher's tokens with the policy's: it scores them by their ids.

    Args:
        own: The policy's tokenizer.
        teachers: The teacher's.
        name: The teacher, for the message.

    Raises:
        PolicyError: A token of one has another id with the other, or none.
    """
    vocabulary = own.get_vocab()
    others = teachers.get_vocab()
    if vocabulary == others:
        return
    differing = [
        token
        for token in {**vocabulary, **others}
        if vocabulary.get(token) != others.get(token)
    ]
    first = min(differing, key=lambda token: vocabulary.get(token, len(vocabulary)))
    raise PolicyError(
        f"config: objective.teacher={name!r} has another vocabulary than the policy:"
        f" {len(differing)} tokens differ, such as {shown(first)}, which is"
        f" {_id_text(vocabulary, first)} with the policy and {_id_text(others, first)}"
        " with the teacher. Choose a teacher of the policy's family."
    )


def _id_text(vocabulary: dict[str, int], token: str) -> str:
    token_id = vocabulary.get(token)
    return "no token" if token_id is None else f"id {token_id}"
