"""How the policy becomes independent of its agents.

By which rollouts may consult, and by what is trained besides:

mixed          of each group a share sees the consult prompt, the rest the plain prompt
               of deployment
prompt_switch  every rollout may consult; only evaluation uses the plain prompt
accept_anneal  every rollout may consult; replies are given with a falling probability
internalised   as mixed; correct aided episodes are also trained in agent-free form
"""

import copy
import math

from aipo_env import (
    Agent,
    AgentPool,
    AgentRequest,
    Outcome,
    Salt,
    Scenario,
    keyed_rng,
)
from aipo_learner.settings.stages import RolloutSettings


def anneal(settings: RolloutSettings, step: int) -> float:
    """Return the factor that falls from 1 once a share of the run is over.

    That share is `anneal_from`. By `anneal_shape`, it falls linearly to 0, which it is
    at the last step; or inversely: it is 1/s in the s-th step from there on (arXiv
    2509.23730).
    """
    start = settings.anneal_from * settings.num_steps
    if step < start:
        return 1.0
    if settings.anneal_shape == "inverse":
        # The first of them counts as step 1.
        return 1 / (1 + step - math.ceil(start))
    # At least 1: `anneal_from` may be the end of the run.
    num_falling = max(1.0, settings.num_steps - start)
    # Step counts from 0, and the last is to have 0 itself.
    return max(0.0, 1 - (step + 1 - start) / num_falling)


DEFAULT_AIDED_SHARE = 0.5
"""Share of a group's rollouts that may consult, if agents answer and none is set."""


def aided_share(settings: RolloutSettings, scenario: Scenario) -> float:
    """Return the share of a group's rollouts that may consult: 0 if nobody answers.

    Where what happened decides which groups are aided, it is the share of these.
    """
    if not scenario.offered:
        return 0.0
    if settings.aid.share is None:
        return DEFAULT_AIDED_SHARE
    return settings.aid.share


def aided_flags(settings: RolloutSettings, share: float, step: int) -> list[bool]:
    """Return, for each rollout of a group, whether it may consult.

    Args:
        settings: Of the rollouts.
        share: As `aided_share` gives it.
        step: Which of the run, from 0.
    """
    if share == 0:
        num_aided = 0
    elif settings.independence in ("prompt_switch", "accept_anneal"):
        num_aided = settings.group_size
    else:
        num_aided = round(settings.group_size * share * anneal(settings, step))
    if settings.aid.is_decided:
        # Somebody plays without help, and decides.
        num_aided = min(num_aided, settings.group_size - 1)
    return [rollout < num_aided for rollout in range(settings.group_size)]


class WithholdingPool(AgentPool):
    """A pool that gives replies with probability `accept`, and withholds the others.

    To the policy, a reply that is withheld is that of an agent that failed.
    """

    accept = 1.0

    def accepting(self, share: float) -> "WithholdingPool":
        """Return this pool with another `accept`.

        Its agents, and what is spent and kept, are the same. This one stays as it is:
        episodes of another step may be sampled with it just now.
        """
        other = copy.copy(self)
        other.accept = share
        return other

    async def consult(
        self, request: AgentRequest, tool: Agent | None = None
    ) -> Outcome:
        """Ask the agent, unless a draw says that its reply is withheld.

        Tools always answer.
        """
        # By the request's seed, which depends on the episode and the turn alone.
        draw = keyed_rng([request.seed], Salt.WITHHELD_REPLY).random()
        if tool is None and draw >= self.accept:
            return Outcome(reply=None, error="withheld")
        return await super().consult(request, tool)
