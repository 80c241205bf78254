"""Correct aided episodes as if they had needed no agent: what `internalised` trains
besides.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from aipo_env import CONSULT_KINDS, Author, Codec, Episode, Scenario
from aipo_learner.learn.rows import Row, episode_row
from aipo_learner.samplers.chat_format import ChatFormat


def agent_free_rows(
    scenario: Scenario,
    tokenizer: PreTrainedTokenizerBase,
    group: Sequence[Episode],
    advantages: Sequence[float],
) -> list[Row]:
    """Return the agent-free forms of a group's correct aided episodes, after the prompt
    of deployment.
    """
    plain = scenario.session(group[0].task, aided=False).open()
    pieces = ChatFormat(tokenizer).prompt(plain)
    prompt = [token_id for token_ids, _ in pieces for token_id in token_ids]
    rows = []
    for episode, advantage in zip(group, advantages, strict=True):
        row = agent_free_row(
            episode,
            advantage,
            prompt,
            scenario.codec,
            tokenizer,
            keeps_tools=scenario.rules.tools_when == "always",
        )
        if row is not None:
            rows.append(row)
    return rows


def agent_free_row(
    episode: Episode,
    advantage: float,
    plain_prompt: list[int],
    codec: Codec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    keeps_tools: bool = True,
) -> Row | None:
    """Return the row of a correct episode that consulted as if it had needed no agent;
    None for any other.

    The plain prompt takes the place of the consult prompt. Consultations are rewritten:
    the calls and the wrappers of the replies are left out, and what agents said stays,
    as agent tokens, in the policy's own line of thought. Calls of tools and their
    results stay as they are, for tools are there in deployment too; unless not
    `keeps_tools`.

    An episode with malformed turns or forged marks gives no row: it would teach them.
    """
    consulted = any(
        consult.is_agents and consult.status == "answered"
        for consult in episode.consults
    )
    is_clean = not episode.num_invalid and not episode.num_forged
    if not (episode.correct and consulted and is_clean and advantage > 0):
        return None
    kept: list[NDArray[np.int64]] = []
    for turn in range(len(episode.turns)):
        part = _agent_free_turn(episode, turn, codec, tokenizer, keeps_tools)
        if part is None:
            return None
        kept += part
    return episode_row(episode, advantage, plain_prompt, np.concatenate(kept))


def _agent_free_turn(
    episode: Episode,
    turn: int,
    codec: Codec,
    tokenizer: PreTrainedTokenizerBase,
    keeps_tools: bool,
) -> list[NDArray[np.int64]] | None:
    """Return which tokens of a turn, and of what came back, the agent-free form has, in
    its order: indices of tokens.

    None where the codec writes an agent's call and a tool's as one that cannot be taken
    apart.
    """
    tokens = episode.tokens
    own = np.flatnonzero((tokens.author == Author.POLICY) & (tokens.turn == turn))
    if turn == len(episode.turns) - 1:
        return [own]
    record = episode.turns[turn]
    calls = codec.parse(record.completion).calls
    stays = [keeps_tools and call.kind not in CONSULT_KINDS for call in calls]
    spans = codec.call_spans(record.completion)
    asked = any(c.is_agents and c.turn == turn + 1 for c in episode.consults)
    if asked and not spans:
        # Written in another codec: its calls would stay.
        return None
    if len(spans) != len(stays):
        # All calls of the turn are one message.
        if len(set(stays)) > 1:
            return None
        stays = stays[: len(spans)]
    back = np.flatnonzero((tokens.author != Author.POLICY) & (tokens.turn == turn + 1))
    # What they quoted of the policy's own words belongs to what they said, and is in no
    # loss.
    said = back[_is_of_agent(episode, back) & tokens.is_content[back]]
    starts, ends = token_bounds(tokens.token_ids[own].tolist(), tokenizer)
    is_left_out = np.zeros(len(own), bool)
    for (begin, end), stay in zip(spans, stays, strict=True):
        if not stay:
            is_left_out |= (ends > begin) & (starts < end)
    if not any(stays):
        # The policy goes on thinking: its turn does not end here.
        is_left_out |= starts >= len(record.completion)
        return [own[~is_left_out], said]
    # What agents said comes before the first call that stays, and the call's result
    # after.
    first = min(begin for (begin, _), stay in zip(spans, stays, strict=True) if stay)
    is_before = ends <= first
    return [
        own[~is_left_out & is_before],
        said,
        own[~is_left_out & ~is_before],
        back[~_is_of_agent(episode, back)],
    ]


def _is_of_agent(episode: Episode, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which tokens came back from agents, their wrappers included: bool[N]."""
    of_agents = [consult.call_id for consult in episode.consults if consult.is_agents]
    return np.isin(episode.tokens.call_id[places], of_agents)


def token_bounds(
    token_ids: list[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each token begins and ends in the text of all: int64[T], int64[T].

    A token decoded alone may lose a blank or half a character: lengths are those of
    growing prefixes.
    """
    lengths = [
        len(str(tokenizer.decode(token_ids[:number])))
        for number in range(1, len(token_ids) + 1)
    ]
    ends = np.array(lengths, np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends])[: len(ends)]
    return starts, ends
