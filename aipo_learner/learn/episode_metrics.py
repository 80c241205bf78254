"""What the episodes of a step say: a function for each metric or family of metrics."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from aipo_env import (
    CONSULT_KINDS,
    Consult,
    Episode,
    TaskSource,
    consult_outcome,
    escape_terminal,
    shown,
)

MAX_NAME_CHARS = 40
"""So much of what a file says stands in the name of a metric."""
MAX_SOURCES = 20
"""Metrics tell so many sources of tasks apart, and no more."""
CONSULT_STATUSES = ("answered", "failed", "leaked", "denied")
"""How a consultation may end, as records have it."""


@dataclass(frozen=True)
class StepEpisodes:
    """The episodes of a step, sorted once for all metrics.

    Args:
        episodes: All of them.
        sources: The origins of tasks that are told apart.
    """

    episodes: Sequence[Episode]
    sources: Sequence[str] = ()

    @cached_property
    def aided(self) -> list[Episode]:
        """Those that were allowed to consult."""
        return [episode for episode in self.episodes if episode.aided]

    @cached_property
    def unaided(self) -> list[Episode]:
        """Those that were not."""
        return [episode for episode in self.episodes if not episode.aided]

    @cached_property
    def consults(self) -> list[Consult]:
        """What agents were asked in aided episodes, whatever became of it."""
        return [
            consult
            for episode in self.aided
            for consult in episode.consults
            if consult.is_agents
        ]


Values = Iterable[float]
Metric = Callable[[StepEpisodes], Values]
"""One value for each thing that is counted; the metric is their mean."""
Family = Callable[[StepEpisodes], Mapping[str, Values]]
"""Metrics whose names depend on the episodes."""


def success(episodes: Iterable[Episode]) -> list[float]:
    """Return 1 for each correct episode, 0 for each other."""
    return [float(episode.correct) for episode in episodes]


def success_aided(step: StepEpisodes) -> Values:
    """Success of the episodes that may consult."""
    return success(step.aided)


def success_unaided(step: StepEpisodes) -> Values:
    """Success of those that may not."""
    return success(step.unaided)


def success_consulted(step: StepEpisodes) -> Values:
    """Success of aided episodes with an answered consultation."""
    return success(episode for episode in step.aided if _num_answered(episode))


def success_not_consulted(step: StepEpisodes) -> Values:
    """Success of aided episodes without one."""
    return success(episode for episode in step.aided if not _num_answered(episode))


def success_revealed(step: StepEpisodes) -> Values:
    """Success of aided episodes in which a reply stated a gold among few candidates."""
    return success(episode for episode in step.aided if episode.is_revealed)


def success_not_revealed(step: StepEpisodes) -> Values:
    """Success of aided episodes without such a reply."""
    return success(episode for episode in step.aided if not episode.is_revealed)


def reward(step: StepEpisodes) -> Values:
    """Rewards of the verifier; an episode without a verdict has none."""
    return [episode.reward for episode in step.episodes if episode.reward is not None]


def policy_tokens_per_episode(step: StepEpisodes) -> Values:
    """Tokens that the policy wrote."""
    return [int(episode.tokens.policy_mask.sum()) for episode in step.episodes]


def turns(step: StepEpisodes) -> Values:
    """Completions of the policy."""
    return [len(episode.turns) for episode in step.episodes]


def forged_marks(step: StepEpisodes) -> Values:
    """Marks of replies that the policy wrote itself."""
    return [episode.num_forged for episode in step.episodes]


def invalid_turns(step: StepEpisodes) -> Values:
    """Malformed turns."""
    return [episode.num_invalid for episode in step.episodes]


def failed_episodes(step: StepEpisodes) -> Values:
    """Share of the episodes without a verdict."""
    return [episode.reward is None for episode in step.episodes]


def truncated(step: StepEpisodes) -> Values:
    """Share of the episodes that a limit cut off."""
    return [episode.stop_reason.is_truncated for episode in step.episodes]


def consult_seconds(step: StepEpisodes) -> Values:
    """Seconds that a consultation took."""
    return [consult.seconds for consult in step.consults]


def reply_tokens(step: StepEpisodes) -> Values:
    """Tokens of an agent's reply."""
    return [consult.tokens for consult in step.consults if consult.status == "answered"]


METRICS: dict[str, Metric] = {
    "success/aided": success_aided,
    "success/unaided": success_unaided,
    "success/consulted": success_consulted,
    "success/not_consulted": success_not_consulted,
    "success/revealed": success_revealed,
    "success/not_revealed": success_not_revealed,
    "reward": reward,
    "policy_tokens_per_episode": policy_tokens_per_episode,
    "turns": turns,
    "forged_marks": forged_marks,
    "invalid_turns": invalid_turns,
    "failed_episodes": failed_episodes,
    "truncated": truncated,
    "consult_seconds": consult_seconds,
    "reply_tokens": reply_tokens,
}


def tool_calls(step: StepEpisodes) -> Mapping[str, Values]:
    """Calls of tools per episode, where any was called."""
    numbers = [
        sum(not consult.is_agents for consult in episode.consults)
        for episode in step.episodes
    ]
    return {"tool_calls": numbers} if any(numbers) else {}


def reward_parts(step: StepEpisodes) -> Mapping[str, Values]:
    """`reward_part/NAME`: the mean of each addend of the reward but the verdict."""
    names = {name for episode in step.episodes for name in episode.reward_parts}
    judged = [episode for episode in step.episodes if episode.reward is not None]
    return {
        # A part that an episode's verifier did not name added nothing to its reward.
        f"reward_part/{name}": [
            episode.reward_parts.get(name, 0.0) for episode in judged
        ]
        # The verdict's own part is what "success" and "reward" say.
        for name in sorted(names - {"verdict"})
    }


def consult_status(step: StepEpisodes) -> Mapping[str, Values]:
    """`consult_status/STATUS`: the share of consultations that ended so."""
    return {
        f"consult_status/{status}": [
            consult.status == status for consult in step.consults
        ]
        for status in CONSULT_STATUSES
    }


def consult_rate_by_difficulty(step: StepEpisodes) -> Mapping[str, Values]:
    """`consult_rate/difficulty_N`: consultations asked for per aided episode, by task.

    N is the difficulty that the task's `meta` names; a task without one has no part.
    """
    rates: dict[str, list[float]] = {}
    for episode in step.aided:
        difficulty = episode.task.meta.get("difficulty")
        if not isinstance(difficulty, int | str):
            continue
        # A file of tasks says it, and loggers make names of it.
        text = shown(difficulty, MAX_NAME_CHARS).strip("'")
        name = f"consult_rate/difficulty_{escape_terminal(text)}"
        num_asked = sum(consult.is_agents for consult in episode.consults)
        rates.setdefault(name, []).append(num_asked)
    return rates


def by_kind(step: StepEpisodes) -> Mapping[str, Values]:
    """`consult_rate/KIND` and `success/KIND/aided|unaided`, for each kind of agent.

    The rate is answered consultations of that agent per aided episode; success is split
    by the help that a task is known to need.
    """
    values: dict[str, Values] = {}
    for kind in CONSULT_KINDS:
        values[f"consult_rate/{kind}"] = [
            _num_answered(episode, kind) for episode in step.aided
        ]
        values[f"success/{kind}/aided"] = success(_needing(kind, step.aided))
        values[f"success/{kind}/unaided"] = success(_needing(kind, step.unaided))
    return values


def _needing(kind: str, episodes: Iterable[Episode]) -> list[Episode]:
    """Return the episodes whose tasks are known to need the help of one kind."""
    return [
        episode for episode in episodes if episode.task.meta.get("bottleneck") == kind
    ]


def by_source(step: StepEpisodes) -> Mapping[str, Values]:
    """`source/NAME/success/unaided|aided`, `.../reward`, `.../share` of each source.

    NAME is a task's `source`, as a mixture sets it; the share is that of the step's
    episodes, 0 included.
    """
    values: dict[str, Values] = {}
    for source, name in zip(step.sources, _names_of(step.sources), strict=True):
        of_source = [
            episode for episode in step.episodes if episode.task.source == source
        ]
        unaided = [episode for episode in of_source if not episode.aided]
        aided = [episode for episode in of_source if episode.aided]
        values[f"source/{name}/success/unaided"] = success(unaided)
        values[f"source/{name}/success/aided"] = success(aided)
        values[f"source/{name}/reward"] = [
            episode.reward for episode in of_source if episode.reward is not None
        ]
        values[f"source/{name}/share"] = [
            episode.task.source == source for episode in step.episodes
        ]
    return values


def _names_of(sources: Sequence[str]) -> list[str]:
    """Return the names of sources in metrics: short ones, and each another."""
    names: list[str] = []
    for number, source in enumerate(sources):
        # A file of tasks says it, and loggers make names of it.
        text = shown(source, MAX_NAME_CHARS).strip("'")
        name = escape_terminal(text) or "none"
        names.append(f"{name}-{number + 1}" if name in names else name)
    return names


def sources_of(source: TaskSource) -> tuple[str, ...]:
    """Return the origins of training tasks that metrics tell apart; none if one.

    Nor are more than `MAX_SOURCES` told apart, or those of an endless source.
    """
    num_tasks = source.num_tasks("train") or 0
    origins = {source.task("train", index).source for index in range(num_tasks)}
    return tuple(sorted(origins)) if 1 < len(origins) <= MAX_SOURCES else ()


FAMILIES: tuple[Family, ...] = (
    by_source,
    tool_calls,
    reward_parts,
    consult_status,
    consult_rate_by_difficulty,
    by_kind,
)


def consult_counts(step: StepEpisodes) -> dict[str, float]:
    """`consults/OUTCOME`: how many consultations came to what.

    Beside the outcomes, `consults/revealed` are replies that stated a gold answer with
    few candidates, and `consults/retries` attempts that were made again.
    """
    counts: dict[str, float] = {}
    for consult in step.consults:
        name = f"consults/{consult_outcome(consult)}"
        counts[name] = counts.get(name, 0) + 1
    counts["consults/revealed"] = sum(consult.reveals for consult in step.consults)
    counts["consults/retries"] = sum(consult.retries for consult in step.consults)
    return counts


def episode_metrics(
    episodes: Sequence[Episode], sources: Sequence[str] = ()
) -> dict[str, float]:
    """Return all metrics of a step's episodes: means, and counts of consultations.

    A mean of nothing is left out.

    Args:
        episodes: Of the step.
        sources: The origins of tasks that are told apart; see `sources_of`.
    """
    step = StepEpisodes(episodes, sources)
    values: dict[str, Values] = {}
    for name, metric in METRICS.items():
        values[name] = metric(step)
    for family in FAMILIES:
        values |= family(step)
    metrics: dict[str, float] = {}
    for name, of_each in values.items():
        numbers = list(of_each)
        if numbers:
            metrics[name] = sum(numbers) / len(numbers)
    return metrics | consult_counts(step)


def _num_answered(episode: Episode, kind: str = "") -> int:
    """Return how many consultations were answered, by agents of a kind or of any."""
    number = 0
    for consult in episode.consults:
        # Calls of tools stand among the consultations.
        if not consult.is_agents or consult.status != "answered":
            continue
        if kind in ("", consult.kind):
            number += 1
    return number
