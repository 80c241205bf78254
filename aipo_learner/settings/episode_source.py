"""Where the episodes of a step come from, as a run's settings."""

from dataclasses import dataclass
from typing import Annotated

from aipo_env import ConfigError
from aipo_learner.settings.checks import Natural, OneOf, check_settings


@dataclass(frozen=True, kw_only=True)
class EpisodeSource:
    """Where episodes come from; by default they are sampled when they are due."""

    max_staleness: Natural = 0
    """Steps that a batch may be sampled ahead of its update; its weights are then as
    many versions old.
    """
    max_refills: Natural = 0
    """Further waves of a step, in each of which every group that teaches nothing is
    followed by one of another task (dynamic sampling, arXiv 2503.14476); 0: such groups
    are left out.
    """
    anneal_shape: Annotated[str, OneOf(("linear", "inverse"))] = "linear"
    """How the share of rollouts that may consult, or the acceptance of replies, falls
    from anneal_from on: linear, to 0 at the last step; or inverse, as 1/s in the s-th
    step (arXiv 2509.23730, with anneal_from 0), which never reaches it.
    """
    mask_truncated: bool = False
    """Do not train on episodes that a limit cut off (overlong filtering, arXiv
    2503.14476): they count in their group's baseline, and in no normaliser.
    """
    episodes: str = ""
    """File of episodes to train on instead of sampling; `aipo lint` checks it,
    docs/episodes.md describes it.
    """
    demonstrations: str = ""
    """File of solutions that stand in the sampled groups of their tasks: episodes, or
    rows with a solution and the id or prompt of a training task. Their tokens are an
    agent's, weighed by the agent rule (arXiv 2504.14945, docs/objective.md).
    """
    sft_episodes: str = ""
    """File of episodes whose correct ones are imitated: supervised fine-tuning, as a
    start or a baseline.
    """
    sft_agent_tokens: bool = False
    """Whether agents' replies are imitated too."""

    def __post_init__(self) -> None:
        check_settings(self, "config: source.")
        # Each of them is a place of its own from which episodes come.
        sources = (self.episodes, self.sft_episodes, self.max_staleness)
        num_set = sum(bool(source) for source in sources)
        if num_set > 1:
            raise ConfigError(
                "config: of episodes, sft_episodes and max_staleness only one can be"
                " set."
            )
        if self.demonstrations and self.is_stored:
            raise ConfigError(
                f"config: demonstrations={self.demonstrations!r} stand in groups that"
                " are sampled: leave out episodes and sft_episodes."
            )
        if self.max_refills and num_set:
            raise ConfigError(
                f"config: max_refills={self.max_refills} needs episodes that are"
                " sampled when they are due: without episodes, sft_episodes and"
                " max_staleness."
            )

    @property
    def is_stored(self) -> bool:
        """Whether episodes come from a file."""
        return bool(self.episodes or self.sft_episodes)
