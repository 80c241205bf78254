"""Evaluation on held-out tasks: unbiased pass@k and mean@k, with paired intervals."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aipo_env import (
    CONSULT_KINDS,
    Episode,
    Salt,
    Scenario,
    Session,
    evaluation_key,
    keyed_rng,
    run_sync,
    task_index,
)
from aipo_learner.evaluation.samples import Sample, SampleFile, sample_of
from aipo_learner.policy.distributed import gathered, rank, share
from aipo_learner.rollout.meter import RolloutMeter
from aipo_learner.rollout.waves import play_wave
from aipo_learner.run.progress import SILENT, Progress
from aipo_learner.samplers.base import Sampler

NUM_RESAMPLES = 2000
"""Bootstrap resamples behind every interval."""
_INTERVAL_QUANTILES = (0.025, 0.975)
"""Bounds of a 95 % interval."""
_NUM_POWERS = 9
"""Powers of two for which pass@k is given: up to 256."""
SESSIONS_AT_ONCE = 512
"""Episodes of one wave: all of them are open at once, so that memory bounds it."""
_TASKS_OF_AN_ENDLESS_SOURCE = 96
"""Where no number is asked for, and there are always more."""


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the unbiased estimate of the chance that any of k samples is correct.

    From arXiv 2107.03374.

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
    num_wrong = num_samples - num_correct
    # Any k samples then hold a correct one; the product below needs k wrong ones.
    if num_wrong < k:
        return 1.0
    # 1 - C(num_wrong, k) / C(num_samples, k), as a product: the binomials overflow.
    factors = np.arange(num_wrong + 1, num_samples + 1)
    return float(1.0 - np.prod(1.0 - k / factors))


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
        majority: float64[tasks], 1 where the answer that most samples give is correct,
            a share where it ties with wrong ones, and 0 elsewhere; None where nothing
            can be voted on.
    """

    task_ids: tuple[str, ...]
    bottlenecks: tuple[str, ...]
    num_correct: NDArray[np.int64]
    num_samples: int
    num_truncated: int = 0
    num_unverified: int = 0
    unverified_reason: str = ""
    mean_reward: float = 0.0
    majority: NDArray[np.float64] | None = None

    def pass_at(self, k: int) -> NDArray[np.float64]:
        """Return pass@k of every task: float64[tasks]."""
        return np.array(
            [
                pass_at_k(self.num_samples, int(num_correct), k)
                for num_correct in self.num_correct
            ]
        )

    def ks(self) -> list[int]:
        """Return the powers of two up to the number of samples, 256 at most."""
        powers = [2**exponent for exponent in range(_NUM_POWERS)]
        return [k for k in powers if k <= self.num_samples]

    def subset(self, bottleneck: str) -> "Scores":
        """Return the tasks of one kind of bottleneck.

        What is counted over all samples, such as those cut off, is not known of them.
        """
        rows = [i for i, name in enumerate(self.bottlenecks) if name == bottleneck]
        return Scores(
            task_ids=tuple(self.task_ids[i] for i in rows),
            bottlenecks=(bottleneck,) * len(rows),
            num_correct=self.num_correct[rows],
            num_samples=self.num_samples,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return means over tasks, their 95 % intervals, and means by bottleneck."""
        row = self._means()
        row["intervals"] = {}
        for k in self.ks():
            row["intervals"][f"pass@{k}"] = interval(self.pass_at(k))
        if self.majority is not None:
            name = f"maj@{self.num_samples}"
            row[name] = float(self.majority.mean())
            row["intervals"][name] = interval(self.majority)
        kinds = [kind for kind in CONSULT_KINDS if kind in self.bottlenecks]
        row["by_bottleneck"] = {kind: self.subset(kind)._means() for kind in kinds}
        row |= {
            "num_truncated": self.num_truncated,
            "num_unverified": self.num_unverified,
            "unverified_reason": self.unverified_reason,
            "mean_reward": self.mean_reward,
        }
        numbers = self.num_correct.tolist()
        row["num_correct"] = dict(zip(self.task_ids, numbers, strict=True))
        return row

    def _means(self) -> dict[str, Any]:
        """Return means over tasks, and of how many."""
        means: dict[str, Any] = {
            f"pass@{k}": float(self.pass_at(k).mean()) for k in self.ks()
        }
        # pass@1 is the share of correct samples, so it is their mean as well.
        means[f"mean@{self.num_samples}"] = means["pass@1"]
        return means | {
            "never_solved": float((self.num_correct == 0).mean()),
            "num_tasks": len(self.task_ids),
            "num_samples": self.num_samples,
        }


def interval(values: NDArray[np.float64]) -> list[float]:
    """Return the 95 % percentile bootstrap interval of a mean over tasks.

    Args:
        values: float64[tasks], one for each.
    """
    # The same draws whatever is measured: what differs between two intervals is then
    # the values, and a report that is written again is the same.
    rng = keyed_rng([0], Salt.BOOTSTRAP)
    num_tasks = len(values)
    resamples = rng.integers(num_tasks, size=(NUM_RESAMPLES, num_tasks))
    means = values[resamples].mean(axis=1)
    return [float(bound) for bound in np.quantile(means, _INTERVAL_QUANTILES)]


def compare(before: Scores, after: Scores) -> dict[str, Any]:
    """Return what changed on the same tasks, with intervals of paired differences.

    Boundary gain is the share of tasks never solved before and solved at least once
    after; boundary loss the reverse.
    """
    ks = [k for k in before.ks() if k <= after.num_samples]
    # Task by task: how hard a task is, which both have in common, widens no interval.
    means: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for k in ks:
        difference = after.pass_at(k) - before.pass_at(k)
        means[f"pass@{k}"] = float(difference.mean())
        intervals[f"pass@{k}"] = interval(difference)
    was_solved = before.num_correct > 0
    is_solved = after.num_correct > 0
    return {
        "difference": means,
        "intervals": intervals,
        "boundary_gain": float((~was_solved & is_solved).mean()),
        "boundary_loss": float((was_solved & ~is_solved).mean()),
    }


def dependence_gap(unaided: Scores, aided: Scores) -> float:
    """Return pass@1 with agents minus pass@1 without, on the same tasks."""
    return float((aided.pass_at(1) - unaided.pass_at(1)).mean())


def evaluate(
    sampler: Sampler,
    scenario: Scenario,
    *,
    num_tasks: int,
    num_samples: int,
    aided: bool,
    seed: int,
    kept: SampleFile | None = None,
    progress: Progress = SILENT,
    at_once: int = SESSIONS_AT_ONCE,
) -> tuple[Scores, list[Episode]]:
    """Sample held-out tasks; return the scores and the first episode of each task.

    Unaided means deployment: the plain prompt, and markup is plain text. An episode
    whose verifier failed counts as wrong.

    Args:
        sampler: The policy.
        scenario: What is played; of its source the test tasks.
        num_tasks: At most so many; 0 stands for all of a finite source, which is never
            read twice.
        num_samples: Episodes of each task.
        aided: Whether the policy may consult.
        seed: Draws the order of the tasks and every sample.
        kept: Where every sample is kept, and what is there already is not played again;
            nowhere if None. Of the first episodes, those that are played are returned.
        progress: Says how far the episodes are.
        at_once: Episodes played side by side; after so many, samples are kept.
    """
    available = scenario.source.num_tasks("test")
    # An endless source has no number of its own.
    available = available or num_tasks or _TASKS_OF_AN_ENDLESS_SOURCE
    num_tasks = min(num_tasks or available, available)
    indices = [
        task_index(scenario.source, "test", position, seed)
        for position in range(num_tasks)
    ]
    tasks = [scenario.source.task("test", index) for index in indices]
    tally = _Tally(num_tasks)
    all_firsts: list[Episode] = []
    # Task by task, so that samples of one prompt are mostly played in one wave.
    jobs = [
        (number, sample) for number in range(num_tasks) for sample in range(num_samples)
    ]
    if kept:
        jobs = [job for job in jobs if not tally.has(kept, job, aided=aided)]
    chunks = [jobs[start : start + at_once] for start in range(0, len(jobs), at_once)]
    whose = "aided" if aided else "alone"
    num_mine = sum(len(share(chunk)) for chunk in chunks)
    meter = RolloutMeter(f"evaluation {whose}", sampler, num_mine)
    for chunk in chunks:
        sessions: list[Session] = []
        for number, sample in chunk:
            key = evaluation_key(seed, number, sample, aided=aided)
            sessions.append(scenario.session(tasks[number], aided=aided, key=key))
        # Each rank plays its share, and all ranks get all episodes.
        wave = play_wave(scenario, share(sessions), sampler, meter=meter)
        with progress.part(meter.text):
            episodes = gathered(run_sync(wave))
        samples: list[Sample] = []
        firsts: list[Episode] = []
        for (number, sample), episode in zip(chunk, episodes, strict=True):
            samples.append(sample_of(number, sample, episode))
            tally.add(samples[-1])
            if sample == 0:
                firsts.append(episode)
        all_firsts += firsts
        if kept and rank() == 0:
            kept.add(samples, firsts)
    scores = Scores(
        task_ids=tuple(task.id for task in tasks),
        bottlenecks=tuple(str(task.meta.get("bottleneck", "")) for task in tasks),
        num_correct=tally.num_correct,
        num_samples=num_samples,
        num_truncated=tally.num_truncated,
        num_unverified=tally.num_unverified,
        unverified_reason=tally.unverified_reason,
        mean_reward=float(np.mean(tally.rewards)) if tally.rewards else 0.0,
        majority=tally.majority(),
    )
    return scores, all_firsts


class _Tally:
    """What the episodes of an evaluation have come to so far."""

    def __init__(self, num_tasks: int) -> None:
        self.num_correct = np.zeros(num_tasks, np.int64)
        self.num_truncated = 0
        self.num_unverified = 0
        self.unverified_reason = ""
        self.rewards: list[float] = []
        # How many samples of each task gave each wrong answer.
        self.wrong_answers = [Counter[str]() for _ in range(num_tasks)]
        self.has_answers = False

    def has(self, kept: SampleFile, job: tuple[int, int], *, aided: bool) -> bool:
        """Return whether a sample was played before, and count it then."""
        sample = kept.find(*job, aided=aided)
        if sample is None:
            return False
        self.add(sample)
        return True

    def add(self, sample: Sample) -> None:
        """Count a sample."""
        self.num_correct[sample.task] += sample.correct
        self.num_truncated += sample.is_truncated
        if sample.extracted:
            self.has_answers = True
            if not sample.correct:
                self.wrong_answers[sample.task][_as_vote(sample.extracted)] += 1
        if sample.reward is None:
            self.num_unverified += 1
            # Of the first that says one: the others mostly say the same.
            self.unverified_reason = self.unverified_reason or sample.reason
        else:
            self.rewards.append(sample.reward)

    def majority(self) -> NDArray[np.float64] | None:
        """Return how the vote of each task's samples went: see `Scores.majority`."""
        if not self.has_answers:
            return None
        numbers = self.num_correct.tolist()
        votes = map(majority_share, numbers, self.wrong_answers)
        return np.array(list(votes), np.float64)


def majority_share(num_correct: int, wrong: Mapping[str, int]) -> float:
    """Return whether the answer that most samples of a task give is correct.

    A tie with wrong answers is a share. All correct answers are one, since each equals
    the gold; wrong ones are one if they are spelt alike.

    Args:
        num_correct: Samples that are correct.
        wrong: How many samples gave each wrong answer.
    """
    most = max(wrong.values(), default=0)
    if not num_correct or num_correct < most:
        return 0.0
    num_ties = sum(count == num_correct for count in wrong.values())
    return 1 / (1 + num_ties)


def _as_vote(answer: str) -> str:
    """Return what answers that are spelt alike have in common."""
    return "".join(answer.split()).casefold()
