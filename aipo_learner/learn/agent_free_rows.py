"""Correct aided episodes as if they had needed no agent.

They are what `internalised` trains on, beside the episodes themselves.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from aipo_env import CONSULT_KINDS, Author, Codec, Episode, Scenario
from aipo_learner.learn.rows import Row, episode_row
from aipo_learner.learn.teaching import Teaching
from aipo_learner.learn.token_bounds import token_bounds
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.settings.objective import ObjectiveConfig


def agent_free_rows(
    scenario: Scenario,
    tokenizer: PreTrainedTokenizerBase,
    group: Sequence[Episode],
    advantages: Sequence[float],
    *,
    objective: ObjectiveConfig | None = None,
    teaching: Teaching | None = None,
) -> list[Row]:
    """Return the agent-free forms of a group's correct aided episodes.

    They stand after the prompt of deployment, which names no agents.

    Args:
        scenario: What was played.
        tokenizer: The policy's.
        group: Episodes of one task, at least one.
        advantages: Of these episodes.
        objective: Says which tokens are learned as observations; None: none are.
        teaching: Says which rows a teacher is asked of, after that prompt; None: of
            none.
    """
    session = scenario.session(group[0].task, aided=False)
    opening = session.open()
    pieces = ChatFormat(tokenizer).prompt(opening)
    prompt = [token_id for token_ids, _ in pieces for token_id in token_ids]
    keeps_tools = scenario.rules.tools_when == "always"
    rows = []
    for episode, advantage in zip(group, advantages, strict=True):
        row = agent_free_row(
            episode,
            advantage,
            prompt,
            scenario.codec,
            tokenizer,
            keeps_tools=keeps_tools,
            objective=objective,
        )
        if row is None:
            continue
        if teaching is not None:
            row = teaching.taught(row, episode, group, opening)
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
    objective: ObjectiveConfig | None = None,
) -> Row | None:
    """Return the agent-free row of a correct episode that consulted; None of others.

    The plain prompt takes the place of the consult prompt. Consultations are rewritten:
    the calls and the wrappers of the replies are left out, and what agents said stays,
    as agent tokens, in the policy's own line of thought. Calls of tools and their
    results stay as they are, for tools are there in deployment too; unless not
    `keeps_tools`.

    An episode with malformed turns or forged marks gives no row: it would teach them.

    Args:
        episode: Any.
        advantage: Of the episode; the row has it too.
        plain_prompt: Token ids of the prompt of deployment.
        codec: In which the episode's calls are written.
        tokenizer: The policy's.
        keeps_tools: Whether there are tools in deployment.
    """
    has_consulted = any(
        consult.is_agents and consult.status == "answered"
        for consult in episode.consults
    )
    is_clean = not episode.num_invalid and not episode.num_forged
    is_worth_it = episode.correct and has_consulted and advantage > 0
    if not is_worth_it or not is_clean:
        return None
    places: list[NDArray[np.int64]] = []
    for turn in range(len(episode.turns)):
        places_of_turn = _agent_free_turn(episode, turn, codec, tokenizer, keeps_tools)
        if places_of_turn is None:
            return None
        places += places_of_turn
    kept = np.concatenate(places)
    return episode_row(episode, advantage, plain_prompt, kept, objective=objective)


def _agent_free_turn(
    episode: Episode,
    turn: int,
    codec: Codec,
    tokenizer: PreTrainedTokenizerBase,
    keeps_tools: bool,
) -> list[NDArray[np.int64]] | None:
    """Return the tokens that the agent-free form has of a turn and of what came back.

    They are places in the episode's tokens, int64[N] each, in the order of the form.
    None where the codec writes an agent's call and a tool's as one that cannot be taken
    apart.
    """
    tokens = episode.tokens
    is_policys = tokens.author == Author.POLICY
    own = np.flatnonzero(is_policys & (tokens.turn == turn))
    if turn == len(episode.turns) - 1:
        # The answer: it calls nobody, and nothing comes back.
        return [own]
    completion = episode.turns[turn].completion
    calls = codec.parse(completion).calls
    stays = [keeps_tools and call.kind not in CONSULT_KINDS for call in calls]
    spans = codec.call_spans(completion)
    # A turn's number counts completions before it: what comes back stands in the next.
    next_turn = turn + 1
    has_asked = any(
        consult.is_agents and consult.turn == next_turn for consult in episode.consults
    )
    if has_asked and not spans:
        # Written in another codec: its calls would stay.
        return None
    if len(spans) != len(stays):
        # All calls of the turn are one message.
        if len(set(stays)) > 1:
            return None
        stays = stays[: len(spans)]
    back = np.flatnonzero(~is_policys & (tokens.turn == next_turn))
    is_of_agent = _is_of_agent(episode, back)
    # What they quoted of the policy's own words belongs to what they said, and is in no
    # loss.
    said = back[is_of_agent & tokens.is_content[back]]
    places = [len(completion), *(place for span in spans for place in span)]
    starts, ends = token_bounds(tokens.token_ids[own], tokenizer, places)
    is_left_out = np.zeros(len(own), bool)
    starts_of_staying = []
    for (span_start, span_end), call_stays in zip(spans, stays, strict=True):
        if call_stays:
            starts_of_staying.append(span_start)
        else:
            # A token that a call shares with the text beside it goes too.
            is_left_out |= (ends > span_start) & (starts < span_end)
    if not any(stays):
        # The policy goes on thinking: its turn does not end here.
        is_left_out |= starts >= len(completion)
        return [own[~is_left_out], said]
    # What agents said comes before the first call that stays, and the call's result
    # after.
    is_before = ends <= min(starts_of_staying)
    return [
        own[~is_left_out & is_before],
        said,
        own[~is_left_out & ~is_before],
        back[~is_of_agent],
    ]


def _is_of_agent(episode: Episode, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which tokens came back from agents, their wrappers included: bool[N]."""
    of_agents = [consult.call_id for consult in episode.consults if consult.is_agents]
    return np.isin(episode.tokens.call_id[places], of_agents)
