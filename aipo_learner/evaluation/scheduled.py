"""What is measured on schedule: the policy alone, on the same tasks every time.

The draws are the same too, so that what changes from one evaluation to the next is the
policy.
"""

from aipo_env import (
    DataError,
    Environment,
    Scenario,
    TaskSource,
    build_scenario,
    is_id,
    trained_on,
)
from aipo_learner.evaluation.evaluate import evaluate
from aipo_learner.run.progress import SILENT, Progress
from aipo_learner.run.scores import SCORE
from aipo_learner.samplers.base import Sampler
from aipo_learner.settings.eval_options import of_other_tasks
from aipo_learner.settings.evaluation import EvaluationSchedule


def held_out_scenario(
    schedule: EvaluationSchedule, environment: Environment, *, seed: int
) -> Scenario:
    """Build the scenario of the evaluation: deployment, so without agents.

    Args:
        schedule: May name another environment, or other tasks.
        environment: The run's.
        seed: The toy world's, unless the environment has one.

    Raises:
        DataError: Its source has no held-out tasks.
    """
    if schedule.environment:
        if is_id(schedule.environment):
            # Another environment with everything that is its own.
            environment = Environment(id=schedule.environment)
        else:
            environment = of_other_tasks(environment, schedule.environment)
    scenario = build_scenario(environment, "none", seed=seed)
    if schedule.every and scenario.source.num_tasks("test") == 0:
        raise DataError(
            f"environment {environment.name!r} has no held-out tasks, and"
            f" evaluation.every={schedule.every} asks for some. Name another source, as"
            " in --evaluation.environment hf:math_500, hold out rows of a file with"
            " test=0.2, or set --evaluation.every 0."
        )
    return scenario


def check_held_out(training: TaskSource, evaluation: TaskSource, name: str) -> None:
    """Raise DataError where tasks to be evaluated on are trained on.

    Args:
        training: Where the training tasks come from.
        evaluation: Where those of the evaluation do.
        name: What messages call the evaluation.
    """
    shared = trained_on(training, evaluation)
    if shared:
        num_tasks = evaluation.num_tasks("test")
        raise DataError(
            f"{len(shared)} of the {num_tasks} tasks of {name!r} to evaluate on are"
            f" trained on, {shared[0].id!r} among them. Take other tasks, hold some out"
            " of the file (test=0.2, or a column that says 'train' or 'test'), or have"
            " the training leave them out: --held-out."
        )


def held_out_metrics(
    schedule: EvaluationSchedule,
    scenario: Scenario,
    sampler: Sampler,
    *,
    seed: int,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Sample the held-out tasks; return the metrics of the evaluation by name.

    They are mean pass@1, mean pass@k, and the shares of episodes without a verdict and
    of those that a limit cut off.
    """
    num_samples = schedule.num_samples
    scores, _ = evaluate(
        sampler,
        scenario,
        num_tasks=schedule.num_tasks,
        num_samples=num_samples,
        aided=False,
        seed=seed,
        progress=progress,
    )
    num_episodes = len(scores.task_ids) * num_samples
    return {
        SCORE: float(scores.pass_at(1).mean()),
        f"eval/pass_at_{num_samples}": float(scores.pass_at(num_samples).mean()),
        "eval/unverified": scores.num_unverified / num_episodes,
        "eval/truncated": scores.num_truncated / num_episodes,
    }
