"""Every sample of an evaluation, in a file: none is lost, and none is played twice.

{"format": 1, "policy": …, "settings": {…}}                        the first line
{"task": 0, "task_id": "p7", "sample": 3, "aided": false,
 "correct": true, "reward": 1.0, …, "turns": ["So \\\\boxed{7}."]}   one a sample
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aipo_env import (
    DataError,
    Episode,
    StopReason,
    check_place,
    write_anew,
    write_episodes,
)
from aipo_learner.policy.load import policy_folder

SAMPLES_FORMAT = 1
"""Of the file; raised when one version can no longer read the next one's."""
_WEIGHTS = ("*.safetensors", "*.bin", "config.json", "chat_template.jinja")
"""Files of a policy's folder that say which it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one sample of a task came to.

    Args:
        task: Number of the task in this evaluation.
        task_id: Its id.
        sample: Number of the sample.
        aided: Whether the policy could consult.
        correct: Whether the verifier accepted it.
        reward: None where it failed before a verdict.
        reason: What the verifier says.
        extracted: What was taken for the answer.
        stop_reason: Why the episode ended.
        is_truncated: Whether a limit ended it.
        policy_tokens: Tokens that the policy wrote.
        turns: What it wrote, turn by turn; empty where the task's source forbids
            republication.
    """

    task: int
    task_id: str
    sample: int
    aided: bool
    correct: bool
    reward: float | None
    reason: str
    extracted: str
    stop_reason: str
    is_truncated: bool
    policy_tokens: int
    turns: Sequence[str]


def sample_of(task: int, sample: int, episode: Episode) -> Sample:
    """Return what an episode came to, as it is kept."""
    verdict = episode.verdict
    is_withheld = bool(episode.task.withheld)
    return Sample(
        task=task,
        task_id=episode.task.id,
        sample=sample,
        aided=episode.aided,
        correct=episode.correct,
        reward=episode.reward,
        reason=verdict.reason if verdict else "",
        extracted=verdict.extracted if verdict and not is_withheld else "",
        stop_reason=episode.stop_reason.value,
        is_truncated=episode.stop_reason.is_truncated,
        policy_tokens=int(episode.tokens.policy_mask.sum()),
        turns=() if is_withheld else [turn.completion for turn in episode.turns],
    )


class SampleFile:
    """The samples of one task set in `folder/samples.jsonl`, and those of before.

    Beside it `episodes.jsonl` has the first episode of each task.

    Args:
        folder: For the files.
        policy: The policy, as `aipo eval` is given it.
        settings: All that the samples depend on, JSON-able. Samples of others are
            replaced.
    """

    def __init__(self, folder: Path, policy: str, settings: Mapping[str, Any]) -> None:
        self._path = folder / "samples.jsonl"
        self._episodes = folder / "episodes.jsonl"
        head = {
            "format": SAMPLES_FORMAT,
            "policy": _fingerprint(policy),
            "settings": settings,
        }
        self._head = json.dumps(head, sort_keys=True, default=repr)
        self._samples: dict[tuple[int, int, bool], Sample] = {}
        self.replaces_others = False
        """Whether samples of another policy or other settings stood there."""

    def open(self) -> None:
        """Read what is there, or begin anew.

        Raises:
            DataError: A file is a link, or cannot be read.
        """
        check_place(self._path)
        check_place(self._episodes)
        lines = self._lines()
        is_ours = next(lines, None) == self._head
        if is_ours:
            for line in lines:
                sample = _read(line)
                if sample is not None:
                    place = (sample.task, sample.sample, sample.aided)
                    self._samples[place] = sample
        self.replaces_others = self._path.is_file() and not is_ours
        # Also what a cut-off line left behind is gone then.
        kept = [json.dumps(asdict(sample)) for sample in self._samples.values()]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_anew(self._path, "".join(f"{line}\n" for line in [self._head, *kept]))
        if not self._samples:
            self._episodes.unlink(missing_ok=True)

    def find(self, task: int, sample: int, *, aided: bool) -> Sample | None:
        """Return a sample that was played before."""
        return self._samples.get((task, sample, aided))

    def count(self, *, aided: bool) -> int:
        """Return how many samples are there."""
        return sum(place[2] == aided for place in self._samples)

    def add(self, samples: Sequence[Sample], firsts: Sequence[Episode]) -> None:
        """Keep further samples.

        Args:
            samples: What they came to.
            firsts: The episodes among them that are the first of their task.
        """
        # One in which the policy failed, as for want of an answer of its endpoint, says
        # nothing of the policy: it is played again.
        samples = [
            sample
            for sample in samples
            if sample.stop_reason != StopReason.POLICY_ERROR.value
        ]
        for sample in samples:
            self._samples[sample.task, sample.sample, sample.aided] = sample
        with self._path.open("a", encoding="utf-8") as file:
            for sample in samples:
                file.write(json.dumps(asdict(sample)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if firsts:
            write_episodes(self._episodes, firsts)

    def _lines(self) -> Iterator[str]:
        """Yield the whole lines of the file; nothing where there is none."""
        if not self._path.is_file():
            return
        try:
            with self._path.open(encoding="utf-8") as file:
                for line in file:
                    if line.endswith("\n"):
                        yield line[:-1]
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self._path} cannot be read: {error}. Delete it, or name another"
                " --out."
            ) from error


def _read(line: str) -> Sample | None:
    """Return the sample in a line; None for a line that holds none."""
    try:
        row = json.loads(line)
        sample = Sample(**row)
    except (RecursionError, TypeError, ValueError):
        return None
    numbers = (sample.task, sample.sample, sample.policy_tokens)
    flags = (sample.aided, sample.correct, sample.is_truncated)
    texts = (sample.task_id, sample.reason, sample.extracted, sample.stop_reason)
    is_sound = (
        all(type(number) is int and number >= 0 for number in numbers)
        and all(type(flag) is bool for flag in flags)
        and all(isinstance(text, str) for text in texts)
        and (sample.reward is None or type(sample.reward) in (int, float))
    )
    return sample if is_sound else None


def _fingerprint(policy: str) -> str:
    """Return what tells a policy from others, and from itself after more training."""
    folder = Path(policy_folder(policy))
    # Whole: specs of two policies behind an endpoint may differ at their ends.
    parts = [str(folder.resolve() if folder.is_dir() else policy)]
    for pattern in _WEIGHTS:
        for path in sorted(folder.glob(pattern)):
            status = path.stat()
            parts.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
    return "; ".join(parts)
