"""Which tokens may be drawn in an evaluation, where not all of them may."""

from dataclasses import dataclass

from aipo_learner.settings.checks import Natural, Share, check_settings


@dataclass(frozen=True, kw_only=True)
class TokenFilter:
    """Cuts unlikely tokens off the distribution that a token is drawn from.

    First all but the `top_k` likeliest go, then those behind the likeliest whose
    probabilities add up to `top_p`, then those less likely than `min_p` times the
    likeliest. For evaluation alone: training needs the whole distribution, whose
    log-probabilities the learner computes.
    """

    top_k: Natural = 0
    """So many tokens at most; 0 for all."""
    top_p: Share = 1.0
    """Share of the probability that the likeliest tokens are to make up; 1 for all."""
    min_p: Share = 0.0
    """Share of the likeliest token's probability that a token must have; 0 for any."""

    def __post_init__(self) -> None:
        check_settings(self, "eval: ")

    @property
    def is_open(self) -> bool:
        """Whether every token may be drawn."""
        return not self.top_k and self.top_p == 1 and not self.min_p


EVERY_TOKEN = TokenFilter()
"""As in training."""
LIKELIEST_TOKEN = TokenFilter(top_k=1)
"""Greedy decoding, which `temperature=0` stands for."""
