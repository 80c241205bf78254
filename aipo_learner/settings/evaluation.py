"""When and how the policy is evaluated during a run."""

from dataclasses import dataclass

from aipo_learner.settings.checks import Count, Natural, check_settings


@dataclass(frozen=True, kw_only=True)
class EvaluationSchedule:
    """Evaluation on held-out tasks, without agents, while a run goes on.

    Args:
        every: Steps between evaluations, beside that of the last step; 0 is never.
        environment: Where the tasks come from; by default the held-out ones of the
            run's environment.
        num_tasks: Tasks of each evaluation, the same every time.
        num_samples: Samples per task.
        patience: Evaluations in a row without a better pass@1 after which the run
            stops; 0 is off.

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
        """Return whether the weights after `step` of `num_steps` steps are measured."""
        # Weights that have made no step are none of this run's.
        if self.every == 0 or step == 0:
            return False
        return step % self.every == 0 or step == num_steps
