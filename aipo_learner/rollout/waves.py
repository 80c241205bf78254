"""Waves of episodes: policy, agents and verifier, all started together."""

from collections.abc import Callable, Sequence

from aipo_env import Episode, EpisodeRunner, Scenario, Session
from aipo_learner.samplers.base import Sampler
from aipo_learner.samplers.own_policy import lend_voice

Further = Callable[[Sequence[Episode], int], Sequence[Session]]
"""Returns the sessions of the next wave: see `EpisodeRunner.waves`."""


def no_further(episodes: Sequence[Episode], wave: int) -> Sequence[Session]:
    """Return no sessions: a step is one wave."""
    return ()


async def play_wave(
    scenario: Scenario,
    sessions: Sequence[Session],
    sampler: Sampler,
    further: Further = no_further,
) -> list[Episode]:
    """Play all sessions to their ends; episodes come in the order of the sessions.

    Those of further waves come behind them.
    """
    # Agents that are the policy itself answer with the weights that play.
    lend_voice(sampler)
    return await EpisodeRunner(scenario, sampler).waves(sessions, further)
