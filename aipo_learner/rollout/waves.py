"""Waves of episodes: policy, agents and verifier, all started together."""

from collections.abc import Callable, Sequence

from aipo_env import Episode, EpisodeRunner, Scenario, Session
from aipo_learner.rollout.meter import RolloutMeter
from aipo_learner.samplers.base import WaveVoices
from aipo_learner.samplers.own_policy import lend_voice

Further = Callable[[Sequence[Episode], int], Sequence[Session]]
"""Returns the sessions of the next wave: see `EpisodeRunner.waves`."""


def no_further(episodes: Sequence[Episode], wave: int) -> Sequence[Session]:
    """Return no sessions: a step is one wave."""
    return ()


async def play_wave(
    scenario: Scenario,
    sessions: Sequence[Session],
    sampler: WaveVoices,
    further: Further = no_further,
    meter: RolloutMeter | None = None,
) -> list[Episode]:
    """Play all sessions to their ends; episodes come in the order of the sessions.

    Those of further waves come behind them. The meter, if there is one, counts all.
    """
    # Agents that are the policy itself answer with the weights that play.
    lend_voice(sampler)
    runner = EpisodeRunner(scenario, sampler)
    if meter is not None:
        meter.runner = runner
        runner.on_episode = meter.add
    return await runner.waves(sessions, further)
