"""How the policy becomes independent of its agents: which rollouts may consult, and
what is trained besides.

mixed          of each group a share sees the consult prompt, the rest the plain prompt
               of deployment
prompt_switch  every rollout may consult; only evaluation uses the plain prompt
accept_anneal  every rollout may consult; replies are given with a falling probability
internalised   as mixed; correct aided episodes are also trained in agent-free form
"""

import copy

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
    """Return the factor that falls linearly from 1, at `anneal_from` of the run, to 0
    at its end.
    """
    start = settings.anneal_from * settings.num_steps
    if step < start:
        return 1.0
    return max(0.0, 1 - (step + 1 - start) / max(1.0, settings.num_steps - start))


DEFAULT_AIDED_SHARE = 0.5
"""Share of a group's rollouts that may consult where agents answer and nothing else is
said.
"""


def aided_share(settings: RolloutSettings, scenario: Scenario) -> float:
    """Return the share of a group's rollouts that may consult: none where nobody
    answers.
    """
    if not scenario.offered:
        return 0.0
    if settings.aided_share is None:
        return DEFAULT_AIDED_SHARE
    return settings.aided_share


def aided_flags(settings: RolloutSettings, share: float, step: int) -> list[bool]:
    """Return, for each rollout of a group, whether it may consult; `share` as of
    `aided_share`.
    """
    if share == 0:
        num_aided = 0
    elif settings.independence in ("prompt_switch", "accept_anneal"):
        num_aided = settings.group_size
    else:
        num_aided = round(settings.group_size * share * anneal(settings, step))
    return [rollout < num_aided for rollout in range(settings.group_size)]


class WithholdingPool(AgentPool):
    """A pool whose replies are given with probability `accept`; withheld ones look like
    a failed agent.
    """

    accept = 1.0

    def accepting(self, share: float) -> "WithholdingPool":
        """Return this pool with another `accept`: the agents, what is spent and what is
        kept are the same.
        """
        other = copy.copy(self)
        other.accept = share
        return other

    async def consult(
        self, request: AgentRequest, tool: Agent | None = None
    ) -> Outcome:
        """Ask the agent unless the request's seed says that the reply is withheld;
        tools always answer.
        """
        draw = keyed_rng([request.seed], Salt.WITHHELD_REPLY).random()
        if tool is None and draw >= self.accept:
            return Outcome(reply=None, error="withheld")
        return await super().consult(request, tool)
