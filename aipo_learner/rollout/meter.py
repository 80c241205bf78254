"""How far episodes have come that are being played."""

import time

from aipo_env import Episode, EpisodeRunner
from aipo_learner.policy.distributed import world_size
from aipo_learner.run.progress import SEPARATOR
from aipo_learner.run.words import in_units, percent
from aipo_learner.samplers.base import WaveVoices


class RolloutMeter:
    """Counts episodes that are played with one sampler, wave after wave.

    Args:
        name: What they are played for.
        sampler: The policy.
        total: How many there will be, as far as is known.
    """

    def __init__(self, name: str, sampler: WaveVoices, total: int) -> None:
        self.total = total
        self.runner: EpisodeRunner | None = None
        """Plays the wave that is under way."""
        self._name = name
        self._sampler = sampler
        self._num_done = 0
        self._num_truncated = 0
        self._first_look: tuple[float, int] | None = None
        """When it was first asked, and the tokens that were sampled by then."""

    def add(self, episode: Episode) -> None:
        """Count an episode that has ended."""
        self._num_done += 1
        self._num_truncated += episode.stop_reason.is_truncated

    def text(self) -> str:
        """Return what there is to say; another thread may ask meanwhile.

        Of several processes that play, it is of this one.
        """
        whose = " of rank 0" if world_size() > 1 else ""
        parts = [f"{self._name} {self._num_done}/{self.total}{whose}"]
        rate = self._tokens_per_second()
        if rate is not None:
            parts.append(f"{in_units(rate)} tok/s")
        num_consulting = self.runner.num_consulting if self.runner else 0
        if num_consulting:
            parts.append(f"consulting {num_consulting}")
        if self._num_done:
            parts.append(f"truncated {percent(self._num_truncated / self._num_done)}")
        return SEPARATOR.join(parts)

    def _tokens_per_second(self) -> float | None:
        """Return the rate since the first look; None at the first."""
        now = time.monotonic()
        num_sampled = self._sampler.num_sampled
        if self._first_look is None:
            self._first_look = (now, num_sampled)
            return None
        since, num_before = self._first_look
        # Two looks may fall on one tick of the clock.
        if now == since:
            return None
        return (num_sampled - num_before) / (now - since)
