"""How the policy becomes independent of its agents: which rollouts may consult, and what is trained besides.

mixed          of each group a share sees the consult prompt, the rest the plain prompt of deployment
prompt_switch  every rollout may consult; only evaluation uses the plain prompt
accept_anneal  every rollout may consult; replies are given with a probability that falls
internalised   as mixed; correct aided episodes are also trained in agent-free form
"""

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from aipo_env import (
    AgentPool,
    AgentRequest,
    Author,
    Codec,
    Episode,
    Outcome,
    Scenario,
    Salt,
    keyed_rng,
)
from aipo_learner.batch import Row, episode_row
from aipo_learner.config import TrainConfig


def anneal(config: TrainConfig, step: int) -> float:
    """Return the factor that falls linearly from 1, at `anneal_from` of the run, to 0 at its end."""
    start = config.anneal_from * config.num_steps
    if step < start:
        return 1.0
    return max(0.0, 1 - (step + 1 - start) / max(1.0, config.num_steps - start))


DEFAULT_AIDED_SHARE = 0.5


def aided_share(config: TrainConfig, scenario: Scenario) -> float:
    """Return the share of a group's rollouts that may consult: none where nobody answers."""
    if not scenario.offered:
        return 0.0
    if config.aided_share is None:
        return DEFAULT_AIDED_SHARE
    return config.aided_share


def aided_flags(config: TrainConfig, share: float, step: int) -> list[bool]:
    """Return, for each rollout of a group, whether it may consult; `share` as of `aided_share`."""
    if share == 0:
        num_aided = 0
    elif config.independence in ("prompt_switch", "accept_anneal"):
        num_aided = config.group_size
    else:
        num_aided = round(config.group_size * share * anneal(config, step))
    return [rollout < num_aided for rollout in range(config.group_size)]


class WithholdingPool(AgentPool):
    """A pool whose replies are given with probability `accept`; withheld ones look like a failed agent."""

    accept = 1.0

    async def consult(self, request: AgentRequest) -> Outcome:
        """Ask the agent unless the request's seed says that the reply is withheld."""
        if keyed_rng([request.seed], Salt.WITHHELD_REPLY).random() >= self.accept:
            return Outcome(reply=None, error="withheld")
        return await super().consult(request)


def agent_free_row(
    episode: Episode,
    advantage: float,
    plain_prompt: list[int],
    codec: Codec,
    tokenizer: PreTrainedTokenizerBase,
) -> Row | None:
    """Return the row of a correct episode that consulted as if it had needed no agent; None for any other.

    The plain prompt takes the place of the consult prompt; calls, wrappers and templates are left out; what agents
    said stays, as agent tokens, in the policy's own line of thought.
    """
    answered = any(consult.status == "answered" for consult in episode.consults)
    clean = not episode.num_invalid and not episode.num_forged
    if not (episode.correct and answered and clean and advantage > 0):
        return None
    is_markup = call_markup(episode, codec, tokenizer)
    keep = (episode.tokens.policy_mask & ~is_markup) | episode.tokens.agent_mask
    return episode_row(episode, advantage, plain_prompt, keep)


def call_markup(
    episode: Episode, codec: Codec, tokenizer: PreTrainedTokenizerBase
) -> NDArray[np.bool_]:
    """Mark the policy's tokens that ask an agent or end a turn before the last: bool[T]."""
    tokens = episode.tokens
    marked = np.zeros(len(tokens), bool)
    last_turn = len(episode.turns) - 1
    for turn in range(last_turn):
        own = np.flatnonzero((tokens.author == Author.POLICY) & (tokens.turn == turn))
        token_ids = tokens.token_ids[own].tolist()
        # A token decoded alone may lose a blank or half a character: lengths are those of growing prefixes.
        ends = np.array(
            [
                len(str(tokenizer.decode(token_ids[:n])))
                for n in range(1, len(token_ids) + 1)
            ],
            int,
        )
        starts = np.concatenate([[0], ends])[: len(ends)]
        for begin, end in codec.call_spans(episode.turns[turn].completion):
            marked[own[(ends > begin) & (starts < end)]] = True
        marked[own[starts >= len(episode.turns[turn].completion)]] = True
    return marked
