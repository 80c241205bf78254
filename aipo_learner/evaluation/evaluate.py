"""Evaluation: unbiased pass@k and mean@k on held-out tasks, without agents and with,
with paired intervals.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aipo_env import (
    CONSULT_KINDS,
    Episode,
    Salt,
    Scenario,
    evaluation_key,
    keyed_rng,
    run_sync,
    task_index,
)
from aipo_learner.policy.distributed import gathered, share
from aipo_learner.rollout.waves import play_wave
from aipo_learner.samplers.base import Sampler

NUM_RESAMPLES = 2000
"""Bootstrap resamples behind every interval."""
_SESSIONS_AT_ONCE = 512
_TASKS_OF_AN_ENDLESS_SOURCE = 96


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of k samples is correct
    (arXiv 2107.03374).

    >>> pass_at_k(4, 1, 2)
    0.5

    Raises:
        ValueError: Not 1 <= k <= num_samples, or not 0 <= num_correct <= num_samples.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(
            f"pass_at_k: k={k} must be from 1 to num_samples={num_samples}."
        )
    if not 0 <= num_correct <= num_samples:
        raise ValueError(
            f"pass_at_k: num_correct={num_correct} must be from 0 to"
            f" num_samples={num_samples}."
        )
    if num_samples - num_correct < k:
        return 1.0
    missing = np.arange(num_samples - num_correct + 1, num_samples + 1)
    return float(1.0 - np.prod(1.0 - k / missing))


@dataclass(frozen=True)
class Scores:
    """How often each task was solved.

    Args:
        task_ids: The tasks, in order.
        bottlenecks: The help each is known to need, "" where unknown.
        num_correct: int64[tasks], correct samples.
        num_samples: Samples per task.
        num_truncated: Of all samples, those that a limit cut off.
        num_unverified: Of all samples, those that failed before a verdict: a verifier
            or a tool did.
        unverified_reason: What the first of them says.
        mean_reward: Over the samples that have one; with partial credit it is not the
            share of correct ones.
    """

    task_ids: tuple[str, ...]
    bottlenecks: tuple[str, ...]
    num_correct: NDArray[np.int64]
    num_samples: int
    num_truncated: int = 0
    num_unverified: int = 0
    unverified_reason: str = ""
    mean_reward: float = 0.0

    def pass_at(self, k: int) -> NDArray[np.float64]:
        """Return pass@k of every task: float64[tasks]."""
        return np.array(
            [pass_at_k(self.num_samples, int(c), k) for c in self.num_correct]
        )

    def ks(self) -> list[int]:
        """Return the powers of two up to the number of samples, 256 at most."""
        return [2**i for i in range(9) if 2**i <= self.num_samples]

    def subset(self, bottleneck: str) -> "Scores":
        """Return the tasks of one kind of bottleneck."""
        keep = [i for i, name in enumerate(self.bottlenecks) if name == bottleneck]
        names = tuple(self.task_ids[i] for i in keep)
        return Scores(
            names, (bottleneck,) * len(keep), self.num_correct[keep], self.num_samples
        )

    def to_dict(self) -> dict[str, Any]:
        """Return means, 95 % bootstrap intervals over tasks, and the same by
        bottleneck.
        """
        row = self._means()
        row["intervals"] = {f"pass@{k}": interval(self.pass_at(k)) for k in self.ks()}
        kinds = [kind for kind in CONSULT_KINDS if kind in self.bottlenecks]
        row["by_bottleneck"] = {kind: self.subset(kind)._means() for kind in kinds}
        row |= {
            "num_truncated": self.num_truncated,
            "num_unverified": self.num_unverified,
            "unverified_reason": self.unverified_reason,
            "mean_reward": self.mean_reward,
        }
        row["num_correct"] = dict(
            zip(self.task_ids, self.num_correct.tolist(), strict=True)
        )
        return row

    def _means(self) -> dict[str, Any]:
        means: dict[str, Any] = {
            f"pass@{k}": float(self.pass_at(k).mean()) for k in self.ks()
        }
        means[f"mean@{self.num_samples}"] = means["pass@1"]
        return means | {
            "never_solved": float((self.num_correct == 0).mean()),
            "num_tasks": len(self.task_ids),
            "num_samples": self.num_samples,
        }


def interval(values: NDArray[np.float64]) -> list[float]:
    """Return the 95 % percentile bootstrap interval of a mean over tasks."""
    draws = keyed_rng([0], Salt.BOOTSTRAP)
    means = values[draws.integers(len(values), size=(NUM_RESAMPLES, len(values)))].mean(
        axis=1
    )
    return [float(x) for x in np.quantile(means, [0.025, 0.975])]


def compare(before: Scores, after: Scores) -> dict[str, Any]:
    """Return what changed on the same tasks: paired differences with intervals,
    boundary gain and loss.

    Boundary gain is the share of tasks never solved before and solved at least once
    after; boundary loss the reverse.
    """
    differences = {
        k: after.pass_at(k) - before.pass_at(k)
        for k in before.ks()
        if k <= after.num_samples
    }
    was, now = before.num_correct > 0, after.num_correct > 0
    return {
        "difference": {f"pass@{k}": float(d.mean()) for k, d in differences.items()},
        "intervals": {f"pass@{k}": interval(d) for k, d in differences.items()},
        "boundary_gain": float((~was & now).mean()),
        "boundary_loss": float((was & ~now).mean()),
    }


def dependence_gap(unaided: Scores, aided: Scores) -> float:
    """Return how much better the policy is with agents than without: pass@1, same
    tasks.
    """
    return float((aided.pass_at(1) - unaided.pass_at(1)).mean())


def evaluate(
    sampler: Sampler,
    scenario: Scenario,
    *,
    num_tasks: int,
    num_samples: int,
    aided: bool,
    seed: int,
) -> tuple[Scores, list[Episode]]:
    """Sample `num_tasks` held-out tasks; return the scores and the first episode of
    each task.

    0 stands for all tasks of a finite source, which is never read twice. Unaided means
    deployment: the plain prompt, and markup is plain text. An episode whose verifier
    failed counts as wrong.
    """
    held = scenario.source.num_tasks("test") or num_tasks or _TASKS_OF_AN_ENDLESS_SOURCE
    num_tasks = min(num_tasks or held, held)
    indices = [
        task_index(scenario.source, "test", position, seed)
        for position in range(num_tasks)
    ]
    tasks = [scenario.source.task("test", index) for index in indices]
    jobs = [
        (number, sample) for number in range(num_tasks) for sample in range(num_samples)
    ]
    num_correct = np.zeros(num_tasks, np.int64)
    num_truncated = num_unverified = 0
    unverified_reason = ""
    rewards: list[float] = []
    firsts: list[Episode] = []
    for start in range(0, len(jobs), _SESSIONS_AT_ONCE):
        chunk = jobs[start : start + _SESSIONS_AT_ONCE]
        sessions = [
            scenario.session(
                tasks[number],
                aided=aided,
                key=evaluation_key(seed, number, sample, aided=aided),
            )
            for number, sample in chunk
        ]
        wave = play_wave(scenario, share(sessions), sampler)
        episodes = gathered(run_sync(wave))
        for (number, sample), episode in zip(chunk, episodes, strict=True):
            num_correct[number] += episode.correct
            num_truncated += episode.stop_reason.is_truncated
            if episode.reward is None:
                num_unverified += 1
                told = episode.verdict.reason if episode.verdict else ""
                unverified_reason = unverified_reason or told
            else:
                rewards.append(episode.reward)
            if sample == 0:
                firsts.append(episode)
    kinds = tuple(str(task.meta.get("bottleneck", "")) for task in tasks)
    names = tuple(task.id for task in tasks)
    return (
        Scores(
            names,
            kinds,
            num_correct,
            num_samples,
            num_truncated,
            num_unverified,
            unverified_reason,
            float(np.mean(rewards)) if rewards else 0.0,
        ),
        firsts,
    )
