"""Training on a file of episodes, made by anybody: `aipo train --episodes`.

As imitation, with `--sft-episodes`.
"""

from collections.abc import Sequence
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
    Salt,
    Scenario,
    StopReason,
    TokenRecord,
    TokenRun,
    all_of,
    keyed_rng,
    read_episodes,
    run_sync,
    run_verifier,
)
from aipo_learner.rollout.sampled import Batches, Groups
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.stages import RolloutSettings

_NUM_ORDERS = 4
"""Orders of epochs that are remembered: a batch reaches into the next, or over some."""


class StoredBatches(Batches):
    """The batches of a run on stored episodes.

    Every epoch goes through the groups in an order of its own. Groups are the episodes
    of one `group_id` and task, wherever they stand. With `sft_episodes`, each correct
    episode stands alone.

    Args:
        source: Names the file, and says whether it is imitated.
        settings: Say how large a step is.
        scenario: Whose verifier judges the episodes that have no reward.
        tokenizer: The policy's.
        max_tokens: Of an episode, as many as the policy can read; any number if None.

    Raises:
        DataError: The file cannot be read, its tokens are not the policy's, an episode
            is too long, or nothing in it can be used.
    """

    def __init__(
        self,
        source: EpisodeSource,
        settings: RolloutSettings,
        scenario: Scenario,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int | None = None,
    ) -> None:
        self._seed = settings.seed
        path = Path(source.sft_episodes or source.episodes)
        episodes = run_sync(_completed(path, scenario, tokenizer, max_tokens))
        if source.sft_episodes:
            self._groups = [[episode] for episode in episodes if episode.correct]
            self._size = settings.groups_per_step * settings.group_size
        else:
            self._groups = _by_task(episodes)
            self._size = settings.groups_per_step
        if not self._groups:
            missing = "correct episode" if source.sft_episodes else "episode"
            raise DataError(
                f"{path}: holds no {missing}, so there is nothing to train on. Give"
                " another file."
            )

    def take(self, step: int) -> Groups:
        """Return the step's groups."""
        first = step * self._size
        positions = range(first, first + self._size)
        return [self._groups[self._place(position)] for position in positions]

    def _place(self, position: int) -> int:
        """Return which group stands at a position of all epochs after another."""
        num_groups = len(self._groups)
        epoch, place = divmod(position, num_groups)
        order = _order(num_groups, self._seed, epoch)
        return int(order[place])


def _by_task(episodes: Sequence[Episode]) -> Groups:
    """Return episodes by group and task, in the order in which these first appear.

    By both, because files that were put together may use a `group_id` twice.
    """
    groups: dict[tuple[str, str], list[Episode]] = {}
    for episode in episodes:
        key = (episode.group_id, episode.task.id)
        groups.setdefault(key, []).append(episode)
    return list(groups.values())


@lru_cache(_NUM_ORDERS)
def _order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return an epoch's order: int64[size], the places of the groups."""
    return keyed_rng([seed], Salt.STORED_ORDER, epoch).permutation(size)


async def _completed(
    path: Path,
    scenario: Scenario,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int | None,
) -> list[Episode]:
    """Read a file; give its episodes the tokens and the rewards that they lack."""
    episodes = [
        # Episodes are lines, which people count from 1.
        with_tokens(episode, f"{path}, line {number}", scenario, tokenizer, max_tokens)
        for number, episode in enumerate(read_episodes(path), 1)
    ]
    return await all_of(judged_episode(episode, scenario) for episode in episodes)


def with_tokens(
    episode: Episode,
    place: str,
    scenario: Scenario,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int | None,
) -> Episode:
    """Return an episode with tokens; those that it has are checked.

    Args:
        episode: As it was read.
        place: Names it in messages.
        scenario: What it is to be trained in.
        tokenizer: The policy's.
        max_tokens: As many as the policy can read; any number if None.

    Raises:
        DataError: Its text was withheld, its tokens are not the policy's, or it is too
            long.
    """
    # An episode that is shared may have the text of its task left out.
    if episode.task.withheld and episode.task.prompt == episode.task.withheld:
        raise DataError(
            f"{place}: the text was withheld when it was written. Delete the line."
        )
    if not len(episode.tokens):
        episode = replace(episode, tokens=tokenised(episode, scenario, tokenizer))
    highest = int(episode.tokens.token_ids.max(initial=0))
    if highest >= len(tokenizer):
        raise DataError(
            f"{place}: token id {highest} is not among the policy's"
            f" {len(tokenizer)}. Take 'tokens' out of the line: then its text is"
            " tokenised."
        )
    num_tokens = len(episode.tokens)
    if max_tokens is not None and num_tokens > max_tokens:
        raise DataError(
            f"{place}: the episode has {num_tokens} tokens, and the policy reads at"
            f" most {max_tokens}. Delete the line, or use a policy with a longer"
            " context."
        )
    return episode


def tokenised(
    episode: Episode, scenario: Scenario, tokenizer: PreTrainedTokenizerBase
) -> TokenRecord:
    """Return the tokens of an episode's messages in the policy's chat format.

    Their log-probabilities are unknown. A turn of the policy that closes with no stop
    string of the scenario's counts as ended by the policy itself: its end token is the
    policy's.

    Args:
        episode: Has messages; its own tokens are not looked at.
        scenario: What it is to be trained in.
        tokenizer: The policy's.
    """
    chat = ChatFormat(tokenizer)
    # Any key: nothing is drawn.
    session = scenario.session(episode.task, aided=episode.aided, key=(0,))
    stops = session.dialogue.stop_strings()
    messages = [encodable_message(message) for message in episode.messages]
    opening = list(takewhile(lambda message: message.role != "assistant", messages))
    runs = _runs(chat.prompt(opening), 0)
    num_turns = 0
    ended = False
    for place, message in enumerate(messages[len(opening) :], len(opening)):
        if message.role == "assistant":
            # An episode made elsewhere may have messages and no turns.
            turns = episode.turns[num_turns : num_turns + 1]
            is_cut = any(turn.finish_reason != "stop" for turn in turns)
            ended = not is_cut and not message.content.endswith(stops)
            runs += _runs(chat.written(message, ended=ended), num_turns)
            num_turns += 1
        else:
            # Up to the policy's turn, which stands before the message.
            earlier = [one.role for one in messages[: place - 1]]
            pieces = chat.suffix(message, ended=ended, earlier=earlier)
            runs += _runs(pieces, num_turns)
    return TokenRecord.join(runs)


def _runs(pieces: Sequence[Piece], turn: int) -> list[TokenRun]:
    """Return pieces as runs of tokens of a turn, without log-probabilities."""
    return [
        TokenRun(
            token_ids=token_ids,
            author=span.author,
            call_id=span.call_id,
            turn=turn,
            logprobs=(),
            is_content=span.is_content,
        )
        for token_ids, span in pieces
    ]


def encodable_message(message: Message) -> Message:
    """Return a message without halves of surrogate pairs.

    JSON can carry them and no tokenizer reads them.
    """
    spans = [
        replace(span, text=span.text.encode("utf-8", "replace").decode())
        for span in message.spans
    ]
    return Message(message.role, tuple(spans))


async def judged_episode(episode: Episode, scenario: Scenario) -> Episode:
    """Return an episode that lacks a reward with the verdict on its last turn.

    One in which something failed stays without: nothing of it is to be learned.

    Args:
        episode: Any.
        scenario: Whose verifier judges.
    """
    if episode.reward is not None:
        return episode
    if episode.stop_reason.is_error or not episode.turns:
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
    # The verdict says nothing of why it was cut.
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
