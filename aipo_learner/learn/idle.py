"""Steps that nothing is learned from: why, and what to do about it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aipo_env import Consult, Episode, NoGradient, StopReason

MAX_REASON_CHARS = 300
"""What is told of one failure: its text may be a whole traceback."""
Groups = Sequence[Sequence[Episode]]
"""Episodes by task: what advantages are taken over."""


def why_idle(groups: Groups, *, mask_truncated: bool = False) -> str:
    """Return, in words, why no group of a step gave a gradient.

    A group whose rewards are all equal says nothing of what is better, and one with a
    failed episode is left out whole.

    Args:
        groups: Of the step.
        mask_truncated: Whether episodes that were cut off are not trained on.
    """
    reasons = Counter(_reason(group, mask_truncated) for group in groups)
    parts = [f"{number} x {reason}" for reason, number in reasons.most_common()]
    episodes = [episode for group in groups for episode in group]
    num_truncated = sum(episode.stop_reason.is_truncated for episode in episodes)
    if num_truncated:
        parts.append(f"{num_truncated} of {len(episodes)} episodes were cut off")
    consults = _agents_consults(episodes)
    failures = [consult for consult in consults if consult.status == "failed"]
    if failures:
        error = failures[0].error[:MAX_REASON_CHARS]
        share = f"{len(failures)} of {len(consults)}"
        parts.append(f"{share} consultations failed: {error}")
    failure = first_failure(groups)
    if failure:
        parts.append(f"the first failure: {failure}")
    return "; ".join(parts)


def _agents_consults(episodes: Sequence[Episode]) -> list[Consult]:
    """Return the consultations of agents; calls of tools are none."""
    return [
        consult
        for episode in episodes
        for consult in episode.consults
        if consult.is_agents
    ]


def _reason(group: Sequence[Episode], mask_truncated: bool) -> str:
    """Return why a group gives no gradient."""
    failures = [episode for episode in group if episode.reward is None]
    if failures:
        return f"group with a failed episode, {failures[0].stop_reason.value}"
    if mask_truncated and all(episode.stop_reason.is_truncated for episode in group):
        return "group all cut off, which mask_truncated leaves out"
    if all(episode.correct for episode in group):
        return "group all right"
    # A wrong answer may earn something, and a right one lose all by a penalty.
    if not any(episode.correct or episode.reward for episode in group):
        return "group all wrong"
    return "group of equal rewards"


def first_failure(groups: Groups) -> str:
    """Return what the first failed episode says of its failure; "" if none failed."""
    for group in groups:
        for episode in group:
            if episode.reward is None and episode.verdict:
                return episode.verdict.reason[:MAX_REASON_CHARS].rstrip(".")
    return ""


def what_to_do(groups: Groups) -> str:
    """Return what usually helps against the commonest reason of a step."""
    episodes = [episode for group in groups for episode in group]
    num_truncated = sum(episode.stop_reason.is_truncated for episode in episodes)
    # From what keeps a run from working at all to what only makes it hard to learn.
    failures = [episode for episode in episodes if episode.reward is None]
    if failures:
        stop_reasons = Counter(episode.stop_reason for episode in failures)
        commonest, _ = stop_reasons.most_common(1)[0]
        return _AGAINST_FAILURE.get(
            commonest, "The reasons stand in the episodes: `aipo view`."
        )
    consults = _agents_consults(episodes)
    if consults and all(consult.status == "failed" for consult in consults):
        return "No agent answers: start them, or correct their addresses (--agents)."
    if 2 * num_truncated >= len(episodes):
        return (
            "Most episodes are cut off: raise --environment.rules.max-policy-tokens or "
            ".max-context-tokens."
        )
    if all(episode.correct for episode in episodes):
        return "The policy solves every task: take harder ones."
    if any(episode.reward for episode in episodes):
        return (
            "Within each task all answers earn the same: a larger --group-size, a"
            " higher --temperature, or a reward that tells more answers apart."
        )
    return (
        "The policy hardly ever succeeds: take easier tasks, a larger --group-size,"
        " agents (--agents), or a reward with partial credit (--reward); `aipo view` on"
        " a file in episodes/ shows what it writes."
    )


_AGAINST_FAILURE: Mapping[StopReason, str] = {
    StopReason.VERIFIER_ERROR: "Correct the verifier or the reward function.",
    StopReason.TOOL_ERROR: "Correct the tool that cannot be made.",
    StopReason.ENVIRONMENT_ERROR: "Report it, with the error that the episodes name.",
    StopReason.ROLLOUT_TIMEOUT: "Raise the deadline, or find what hangs.",
}


@dataclass(frozen=True)
class Learned:
    """What a run came to.

    Args:
        had_gradient: Whether any of its steps had a gradient.
        idle_note: Why the last step without one had none, and what to do about it.
        found: What there is, of a run that was done already; "" of any other.
        num_held_out: Tasks that are held out of its file and that no evaluation of the
            run has measured.
    """

    had_gradient: bool
    idle_note: str = ""
    found: str = ""
    num_held_out: int = 0


def stop_idle(
    num_idle: int,
    groups: Groups,
    folder: object,
    *,
    mask_truncated: bool = False,
    observes: bool = False,
) -> NoGradient:
    """Return what to raise after so many steps in a row without a gradient.

    Args:
        num_idle: How many.
        groups: Of the last of them.
        folder: Where the run is saved.
        mask_truncated: As for `why_idle`.
        observes: Whether observation tokens are learned: these steps may have had a
            gradient of them.
    """
    reasons = why_idle(groups, mask_truncated=mask_truncated)
    steps = "step" if num_idle == 1 else "steps in a row"
    missing = "no gradient but of observation tokens" if observes else "no gradient"
    return NoGradient(
        f"{num_idle} {steps} gave {missing}, so the run stops; it is saved in "
        f"{folder}. The last of them: {reasons}. {what_to_do(groups)} "
        "--stop-after-idle-steps 0 goes on all the same."
    )
