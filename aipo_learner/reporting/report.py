"""The report of a comparison: its summary and its arms' metrics and episodes, as one
self-contained page.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from aipo_env import (
    DataError,
    Episode,
    check_entries,
    check_place,
    episodes_section,
    html_templates,
    read_episodes,
    read_whole,
    write_anew,
)
from aipo_learner.learn.coefficients import read_coefficients
from aipo_learner.policy.load import policy_folder
from aipo_learner.reporting.arms import Arm, read_arms
from aipo_learner.reporting.charts import legend_key
from aipo_learner.reporting.figures import figures
from aipo_learner.reporting.token_text import token_decoder
from aipo_learner.settings.train import read_object

_EVALUATION = "evaluation-*.jsonl"
MAX_SUMMARY_BYTES = 64 * 2**20
"""A longer summary is not read."""
_PER_EVALUATION = 3
"""Episodes shown of each evaluation; kinds of bottleneck take turns, so these are one
of each.
"""


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` about the arms of a comparison, or about a single run;
    return its path.

    A comparison's folder has `summary.json` and its arms' folders, a run's
    `metrics.jsonl` and, when `aipo eval --out` wrote there, `scores.json`. An arm's
    folder may hold `metrics.jsonl`, `checkpoints`, `episodes/step-*.jsonl` of its
    training and `episodes/evaluation-*.jsonl` after it; `before/episodes` those before
    it. What is missing is left out.

    Raises:
        DataError: There is nothing to report on, or a file is corrupt.
        ConfigError: jinja2 is not installed.
    """
    is_run = (folder / "metrics.jsonl").is_file()
    summary = _read_summary(folder / ("scores.json" if is_run else "summary.json"))
    versions = summary.get("versions")
    arms = list(read_arms(folder, summary))
    if not arms:
        raise DataError(
            f"{folder}: holds no run. Give the --out folder of `aipo train` or `aipo"
            " demo`."
        )
    templates = html_templates(Path(__file__).parent / "templates")
    templates.filters["percent"] = _percent
    templates.globals["legend_key"] = lambda style: Markup(legend_key(style))
    page = templates.get_template("report.html.j2").render(
        title=_headline(arms),
        comparison=_comparison(arms),
        arms=arms,
        bottlenecks=list(
            dict.fromkeys(name for arm in arms for name in arm.bottlenecks)
        ),
        **figures(arms),
        outcomes=list(dict.fromkeys(name for arm in arms for name in arm.consults)),
        episodes=_episodes(folder, arms),
        differences=_differences(arms, summary.get("against")),
        evaluation=_evaluation(arms),
        seed=summary.get("seed"),
        versions=versions if isinstance(versions, Mapping) else {},
    )
    path = folder / "report.html"
    write_anew(path, page)
    return path


def _differences(arms: Sequence[Arm], against: object) -> list[str]:
    """Return a sentence for each arm that the first is compared with, task by task."""
    titles = {arm.folder.name: arm.title for arm in arms}
    sentences = []
    for name, change in against.items() if isinstance(against, Mapping) else ():
        try:
            low, high = change["intervals"]["pass@1"]
            points, gain = 100 * change["difference"]["pass@1"], change["boundary_gain"]
            sentences.append(
                f"{arms[0].title} against {titles[name]}, alone: {points:+.1f} points"
                f" of pass@1 (95 % paired bootstrap {100 * low:+.1f} to"
                f" {100 * high:+.1f}); {gain:.0%} of the tasks were solved by the first"
                " only."
            )
        except (KeyError, OverflowError, TypeError, ValueError):
            continue
    return sentences


def _read_summary(path: Path) -> Mapping[str, Any]:
    if not check_place(path).is_file():
        return {}
    try:
        return read_object(read_whole(path, MAX_SUMMARY_BYTES).decode("utf-8"))
    except ValueError as error:
        mend = "Run the command that wrote it again, or delete it."
        raise DataError(f"{path}: no JSON object ({error}). {mend}") from error


def _headline(arms: Sequence[Arm]) -> str:
    """Return what was measured of the arm in question, in a sentence."""
    for arm in arms:
        before, after = (
            arm.number("unaided", when, "pass@1") for when in ("before", "after")
        )
        if arm.folder.name == "aipo" and before is not None and after is not None:
            now, was = _percent(after), _percent(before)
            return (
                f"Alone, the policy solves {now} of unseen tasks; before training,"
                f" {was}"
            )
    return "What the policy can do alone"


def _comparison(arms: Sequence[Arm]) -> str:
    """Return what the arms beside it came to, in a sentence."""
    parts = [
        f"{_percent(after)} with “{arm.title}”"
        + (f" ({arm.description})" if arm.description else "")
        for arm in arms
        if arm.folder.name != "aipo"
        and (after := arm.number("unaided", "after", "pass@1")) is not None
    ]
    return (
        f"For comparison, the policy alone came to {' and '.join(parts)}."
        if parts
        else ""
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def _evaluation(arms: Sequence[Arm]) -> Mapping[str, float]:
    """Return how many tasks and answers each pass@k was measured on, where known."""
    for arm in arms:
        sizes = {
            name: arm.number("unaided", "after", name)
            for name in ("num_tasks", "num_samples")
        }
        if known := {name: size for name, size in sizes.items() if size is not None}:
            return known
    return {}


def _episodes(folder: Path, arms: Sequence[Arm]) -> str:
    """Return the viewer: evaluation before training, then each arm's training and
    evaluation.
    """
    shown: list[tuple[str, Episode, NDArray[np.float32]]] = []
    before = check_place(folder / "before", is_folder=True)
    for path in _own_files(before, _EVALUATION):
        shown += [
            ("before training", *found) for found in _read(path)[:_PER_EVALUATION]
        ]
    for arm in arms:
        steps = _own_files(arm.folder, "step-*.jsonl")
        # The beginning, the middle and the end.
        for path in dict.fromkeys(steps[i] for i in (0, len(steps) // 2, -1) if steps):
            source = (
                f"{arm.title}, step {path.stem.removeprefix('step-').lstrip('0') or 0}"
            )
            first_of_mode = {
                episode.aided: (episode, known)
                for episode, known in reversed(_read(path))
            }
            shown += [
                (source, *first_of_mode[aided])
                for aided in (True, False)
                if aided in first_of_mode
            ]
        for path in _own_files(arm.folder, _EVALUATION):
            shown += [
                (f"{arm.title}, after training", *found)
                for found in _read(path)[:_PER_EVALUATION]
            ]
    if not shown:
        return ""
    sources, episodes, coefficients = zip(*shown, strict=True)
    return episodes_section(
        episodes, tokens=_decoder(arms), coefficients=coefficients, sources=sources
    )


def _own_files(run: Path, pattern: str) -> list[Path]:
    """Return the files of episodes of a run, none of them by a link: a shared folder's
    lead anywhere.
    """
    folder = run / "episodes"
    if folder.is_symlink():
        return []
    return [path for path in sorted(folder.glob(pattern)) if not path.is_symlink()]


def _read(path: Path) -> list[tuple[Episode, NDArray[np.float32]]]:
    episodes = list(read_episodes(path))
    return list(zip(episodes, read_coefficients(path, episodes), strict=True))


def _decoder(arms: Sequence[Arm]) -> Callable[[int], str] | None:
    """Return the decoder of the arms' policy, which they share, if one of them has a
    checkpoint.
    """
    for arm in arms:
        try:
            policy = Path(policy_folder(str(arm.folder)))
            for place in (policy.parents[1], policy.parent, policy):
                check_place(place, is_folder=True)
            check_entries(policy)
            return token_decoder(policy)
        # transformers raises many kinds for one fault: there is no tokenizer to read
        except Exception:
            continue
    return None
