"""When the policy is evaluated during a run, which weights were best, and when to stop."""

from collections.abc import Mapping
from dataclasses import dataclass

from aipo_learner.settings.checks import Count, Natural, check_settings

SCORE = "eval/pass_at_1"
"""The metric by which weights are chosen: over held-out tasks, the mean share of correct episodes, alone."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSchedule:
    """Evaluation on held-out tasks, without agents, while a run goes on.

    Args:
        every: Steps between evaluations, beside that of the last step; 0 is never.
        environment: Where the tasks come from; by default the held-out ones of the run's environment.
        num_tasks: Tasks of each evaluation, the same every time.
        num_samples: Samples per task.
        patience: Evaluations in a row without a better pass@1 after which the run stops; 0 is off.

    Raises ConfigError naming the field, its value and the valid ones.
    """

    every: Natural = 0
    environment: str = ""
    num_tasks: Count = 48
    num_samples: Count = 4
    patience: Natural = 0

    def __post_init__(self) -> None:
        check_settings(self, "config: evaluation.")

    def is_due(self, step: int, num_steps: int) -> bool:
        """Return whether the weights after `step` of `num_steps` steps are evaluated."""
        return self.every > 0 < step and (step % self.every == 0 or step == num_steps)


def best_step(scores: Mapping[int, float]) -> int:
    """Return the step with the highest score, the first of equals; 0 where there is none."""
    return max(scores, key=lambda step: (scores[step], -step), default=0)


def is_stalled(scores: Mapping[int, float], patience: int) -> bool:
    """Return whether the last `patience` evaluations brought nothing better; 0 is never.

    >>> is_stalled({10: 0.2, 20: 0.3, 30: 0.3, 40: 0.1}, 2)
    True
    """
    return 0 < patience <= sum(step > best_step(scores) for step in scores)
