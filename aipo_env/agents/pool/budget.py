"""What agents and tools may take in a run, and what they took."""

from collections import defaultdict

from aipo_env.agents.base import BudgetSpent
from aipo_env.agents.pool.gate import Notices
from aipo_env.agents.pool.limits import PoolLimits
from aipo_env.budgets import SPENT, counted, spent_limit


class Budget:
    """The run's budget for agents and tools.

    `spent` is what was taken in this process, by the names of `counted`.

    Args:
        limits: Those of the pool.
    """

    def __init__(self, limits: PoolLimits) -> None:
        self.spent = defaultdict[str, float](float, calls=0, tokens=0, usd=0.0)
        totals = {metric: getattr(limits, f"max_{metric}") for metric in SPENT}
        self._most: dict[str, float | None] = {**totals, **limits.max_per_kind}
        self._when_spent = limits.when_spent
        self._notices = Notices()

    def spend(self, kind: str, metric: str, amount: float) -> None:
        """Count what a role or a tool took; a tool is not counted with the agents."""
        for name in counted(kind, metric):
            self.spent[name] += amount

    def reached(self, kind: str) -> str:
        """Return the limit that forbids another call; empty: none does."""
        return spent_limit(self._most, self.spent, kind)

    def refusal(self, kind: str) -> str:
        """Return which budget forbids another call, in a sentence; empty: none does.

        Raises:
            BudgetSpent: The run is to stop then.
        """
        name = self.reached(kind)
        if not name:
            return ""
        # As it is set: max_per_kind has "verify/calls", the total is max_calls.
        setting = name if "/" in name else f"max_{name}"
        limit = f"{setting}={self._most[name]}"
        refusal = f"the run's budget for agents is spent: {limit}"
        if self._when_spent == "stop":
            raise BudgetSpent(
                f"{refusal}. Raise it, or set when_spent to 'unaided', and resume."
            )
        self._notices.give(f"{refusal}; the run goes on unaided")
        return refusal
