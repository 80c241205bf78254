"""Training on a file of episodes, made by anybody: `aipo train --episodes` and, as
imitation, `--sft-episodes`.
"""

from dataclasses import replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from aipo_env import (
    DataError,
    Episode,
    EpisodeView,
    Message,
    Piece,
    Run,
    Salt,
    Scenario,
    Span,
    StopReason,
    TokenRecord,
    all_of,
    keyed_rng,
    read_episodes,
    run_sync,
    run_verifier,
)
from aipo_learner.rollout.sampled import Batches, Groups
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.settings.train import TrainConfig


class StoredBatches(Batches):
    """The batches of a run on stored episodes: every epoch goes through the groups in
    an order of its own.

    Groups are the episodes of one `group_id` and task, wherever they stand. With
    `sft_episodes`, each correct episode stands alone.

    Raises:
        DataError: The file cannot be read, its tokens are not the policy's, or nothing
            in it can be used.
    """

    def __init__(
        self,
        config: TrainConfig,
        scenario: Scenario,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._seed, source = config.seed, config.source
        path = Path(source.sft_episodes or source.episodes)
        episodes = run_sync(_completed(path, scenario, tokenizer))
        if source.sft_episodes:
            self._groups = [[episode] for episode in episodes if episode.correct]
            self._size = config.groups_per_step * config.group_size
        else:
            by_task: dict[tuple[str, str], list[Episode]] = {}
            for episode in episodes:
                by_task.setdefault((episode.group_id, episode.task.id), []).append(
                    episode
                )
            self._groups, self._size = list(by_task.values()), config.groups_per_step
        if not self._groups:
            wanted = "correct episode" if source.sft_episodes else "episode"
            raise DataError(
                f"{path}: holds no {wanted}, so there is nothing to train on. Give"
                " another file."
            )

    def take(self, step: int) -> Groups:
        """Return the step's groups."""
        positions = range(step * self._size, (step + 1) * self._size)
        return [self._groups[self._place(position)] for position in positions]

    def _place(self, position: int) -> int:
        epoch, within = divmod(position, len(self._groups))
        return int(_order(len(self._groups), self._seed, epoch)[within])


@lru_cache(4)
def _order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return keyed_rng([seed], Salt.STORED_ORDER, epoch).permutation(size)


async def _completed(
    path: Path, scenario: Scenario, tokenizer: PreTrainedTokenizerBase
) -> list[Episode]:
    """Read a file; give its episodes the tokens and the rewards that they lack."""
    episodes = []
    for number, episode in enumerate(read_episodes(path), 1):
        if episode.task.withheld and episode.task.prompt == episode.task.withheld:
            raise DataError(
                f"{path}, line {number}: the text was withheld when it was written."
                " Delete the line."
            )
        if not len(episode.tokens):
            episode = replace(episode, tokens=tokenised(episode, scenario, tokenizer))
        if (highest := int(episode.tokens.token_ids.max(initial=0))) >= len(tokenizer):
            raise DataError(
                f"{path}, line {number}: token id {highest} is not among the policy's"
                f" {len(tokenizer)}. Take 'tokens' out of the line: then its text is"
                " tokenised."
            )
        episodes.append(episode)
    return await all_of(_judged(episode, scenario) for episode in episodes)


def tokenised(
    episode: Episode, scenario: Scenario, tokenizer: PreTrainedTokenizerBase
) -> TokenRecord:
    """Return the tokens of an episode's messages in the policy's chat format;
    log-probabilities are unknown.

    A turn of the policy that closes with no stop string of the scenario's counts as
    ended by the policy itself: its end token is the policy's.
    """
    chat = ChatFormat(tokenizer)
    stops = scenario.session(
        episode.task, aided=episode.aided, key=(0,)
    ).dialogue.stop_strings()
    messages = [
        Message(message.role, tuple(map(_encodable, message.spans)))
        for message in episode.messages
    ]
    opening = list(takewhile(lambda message: message.role != "assistant", messages))
    runs: list[Run] = []

    def record(pieces: list[Piece], turn: int) -> None:
        for token_ids, span in pieces:
            run = Run(
                token_ids=token_ids,
                author=span.author,
                call_id=span.call_id,
                turn=turn,
                logprobs=(),
                is_content=span.is_content,
            )
            runs.append(run)

    record(chat.prompt(opening), 0)
    num_turns, ended = 0, False
    for message in messages[len(opening) :]:
        if message.role == "assistant":
            cut = any(
                turn.finish_reason != "stop"
                for turn in episode.turns[num_turns : num_turns + 1]
            )
            ended = not cut and not message.content.endswith(stops)
            record(chat.written(message, ended=ended), num_turns)
            num_turns += 1
        else:
            record(chat.suffix(message, ended=ended), num_turns)
    return TokenRecord.join(runs)


def _encodable(span: Span) -> Span:
    """Return a span without halves of surrogate pairs, which JSON can carry and no
    tokenizer reads.
    """
    return replace(span, text=span.text.encode("utf-8", "replace").decode())


async def _judged(episode: Episode, scenario: Scenario) -> Episode:
    """Return an episode that lacks a reward with the verdict on its last turn; nothing
    else failed in it.
    """
    if episode.reward is not None or episode.stop_reason.is_error or not episode.turns:
        return episode
    text = episode.turns[-1].completion
    view = EpisodeView(
        task=episode.task,
        answer=text,
        messages=episode.messages,
        consults=episode.consults,
        aided=episode.aided,
    )
    verdict = await run_verifier(scenario.verifier, episode.task, text, view)
    if verdict.reward is None:
        reason = StopReason.VERIFIER_ERROR
    elif verdict.status == "no_answer":
        reason = StopReason.NO_ANSWER
    else:
        reason = StopReason.COMPLETED
    if episode.stop_reason.is_truncated:
        reason = episode.stop_reason
    parts: dict[str, float] = {}
    if verdict.reward is not None:
        parts = dict(verdict.parts) or {"verdict": verdict.reward}
    return replace(
        episode,
        verdict=verdict,
        reward=verdict.reward,
        reward_parts=parts,
        stop_reason=reason,
    )
